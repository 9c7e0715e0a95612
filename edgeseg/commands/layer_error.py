"""Rows of `inspect --error`: what each layer of an artifact loses against the fp32 artifact of its format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import click

from edgeseg import plugins
from edgeseg.commands.profiling import ProfileReport
from edgeseg.commands.progress import progress
from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput, InferenceError, MissingDependency
from edgeseg.golden import read_frame
from edgeseg.metrics import SQNR_LIMIT_DB
from edgeseg.preprocess import to_input
from edgeseg.runtimes.layer_error import LayerError, layer_errors
from edgeseg.runtimes.opening import open_session
from edgeseg.types import Artifact, Bundle, Frame, Precision

# What ONNX Runtime adds to the name of a node that it fuses, or lays out anew.
_FUSED = re.compile(r"(_token_\d+|_nchwc)$")


@dataclass(slots=True)
class ErrorLayerRow:
    """One layer; `time_us` of a profile made along with it, None where the engine names no such layer."""

    name: str
    kind: str
    precision: str
    sqnr_db: float
    drop_db: float
    time_us: float | None = None


@dataclass(slots=True)
class ErrorRow:
    """One artifact on one runtime, against the fp32 artifact of its format there."""

    format: str
    precision: str
    runtime: str
    device: str
    frames: int
    worst: str | None = None
    layers: list[ErrorLayerRow] = field(default_factory=list)
    reason: str | None = None

    @property
    def name(self) -> str:
        """As in `openvino-int8 on openvino`."""
        return f"{self.format}-{self.precision} on {self.runtime}"


def compare_layers(
    bundle: Bundle,
    runtimes: Sequence[str],
    precision: str | None,
    device: str,
    threads: int | None,
    frames: int | None,
    profile: ProfileReport | None,
) -> list[ErrorRow]:
    """Compare every artifact that is not fp32 with the one that is, on every runtime that reads both.

    Args:
        bundle: with golden frames.
        runtimes: to compare on; none for every engine.
        precision: of the artifacts; None for all.
        device, threads: of the runtimes.
        frames: how many golden frames; None for all.
        profile: whose times are put beside the errors.

    Raises:
        BadInput: the bundle has no golden frame.
        InferenceError: nothing could be compared.
    """
    golden = bundle.manifest.golden[:frames]
    if not golden:
        raise BadInput(f"{bundle.path} has no golden frame to run: convert the model again")
    images = [read_frame(g) for g in golden]
    pairings = list(_pairings(bundle, runtimes, precision, device, len(images)))
    with progress("comparing layers", len(pairings)) as advance:
        for row, artifact in pairings:
            try:
                _fill(row, bundle, artifact, images, threads, _times(profile, row))
            except (InferenceError, MissingDependency) as error:
                row.reason = str(error)
            advance()
    rows = [row for row, _ in pairings]
    if not any(row.layers for row in rows):
        reasons = "; ".join(sorted({row.reason or "" for row in rows})) or "it has nothing to hold against fp32"
        raise InferenceError(f"no layer of {bundle.path.name} could be compared: {reasons}")
    return rows


def print_errors(rows: Sequence[ErrorRow]) -> None:
    """A table of layers for each row, in order; the one that loses most is marked."""
    for row in rows:
        click.echo()
        if not row.layers:
            click.echo(f"{row.name}: {row.reason}")
            continue
        worst = max(row.layers, key=lambda layer: layer.drop_db)
        title = (
            f"{row.name} ({row.device}): {len(row.layers)} layers against {row.format}-{Precision.FP32} on "
            f"{row.frames} golden frames, most is lost in {worst.name}: {worst.drop_db:.1f} dB"
        )
        timed = any(layer.time_us is not None for layer in row.layers)
        columns = ["layer", "kind", "precision", "SQNR dB", "drop dB", *(["us"] if timed else []), ""]
        cells = [_cells(layer, timed, layer is worst) for layer in row.layers]
        print_table(title, columns, cells, styles=["red" if layer is worst else None for layer in row.layers])


def _pairings(
    bundle: Bundle, runtimes: Sequence[str], precision: str | None, device: str, frames: int
) -> Iterator[tuple[ErrorRow, Artifact]]:
    for name in runtimes or plugins.ENGINES:
        for artifact in bundle.artifacts:
            wanted = artifact.precision is not Precision.FP32 and precision in (None, artifact.precision)
            if wanted and artifact.format in plugins.runtime(name).formats:
                yield ErrorRow(artifact.format, artifact.precision, name, device, frames), artifact


def _fill(
    row: ErrorRow,
    bundle: Bundle,
    artifact: Artifact,
    images: Sequence[Frame],
    threads: int | None,
    times: Mapping[str, float],
) -> None:
    exact = next((a for a in bundle.artifacts if (a.format, a.precision) == (artifact.format, Precision.FP32)), None)
    if exact is None:
        raise InferenceError(
            f"the bundle has no {artifact.format}-{Precision.FP32} to compare with: convert again with --precision fp32"
        )
    with (
        open_session(bundle, exact, row.runtime, device=row.device, threads=threads) as reference,
        open_session(bundle, artifact, row.runtime, device=row.device, threads=threads) as session,
    ):
        row.device = session.device
        layout = session.inputs[0].layout
        errors = layer_errors(reference, session, (to_input(image, bundle.preprocess, layout) for image in images))
    row.layers = list(_timed(errors, times))
    row.worst = max(row.layers, key=lambda layer: layer.drop_db).name


def _times(profile: ProfileReport | None, row: ErrorRow) -> dict[str, float]:
    """Times of the layers of the same artifact on the same runtime."""
    rows = profile.rows if profile else ()
    times: dict[str, float] = {}
    for layer in (layer for r in rows if r.name == row.name for layer in r.layers):
        name = _FUSED.sub("", layer.name)
        times[name] = times.get(name, 0.0) + layer.time_us
    return times


def _timed(errors: Sequence[LayerError], times: Mapping[str, float]) -> Iterator[ErrorLayerRow]:
    for error in errors:
        found = [times[name] for name in error.names if name in times]
        time_us = sum(found) if found else None
        yield ErrorLayerRow(error.name, error.kind, error.precision, error.sqnr_db, error.drop_db, time_us)


def _cells(layer: ErrorLayerRow, timed: bool, worst: bool) -> list[str | None]:
    exact = layer.sqnr_db >= SQNR_LIMIT_DB
    time_us = None if layer.time_us is None else f"{layer.time_us:.1f}"
    return [
        layer.name,
        layer.kind,
        layer.precision,
        "exact" if exact else f"{layer.sqnr_db:.1f}",
        f"{layer.drop_db:.1f}",
        *([time_us] if timed else []),
        "<- loses most" if worst else "",
    ]
