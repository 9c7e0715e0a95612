"""Rows of `inspect --profile`: the layers of one artifact on one runtime, against the peak of the core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import click
import numpy as np

from edgeseg import plugins
from edgeseg.commands.progress import progress
from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput, InferenceError, MissingDependency
from edgeseg.evidence import LayerTime
from edgeseg.golden import read_frame
from edgeseg.preprocess import to_input
from edgeseg.runtimes.opening import open_session
from edgeseg.runtimes.profile import Peak, core_peak, profile
from edgeseg.types import Array, Artifact, Bundle, Frame, Preprocess, Session


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer: what the engine told, and what follows from it. `share` is of the artifact's time, 0..1."""

    name: str
    kind: str
    precision: str
    time_us: float
    share: float
    macs: int | None
    gmacs_per_s: float | None
    share_of_peak: float | None


@dataclass(slots=True)
class ProfileRow:
    """One artifact on one runtime. What was not measured is None, never 0.

    `run_us` is the median of whole runs without a profiler, `time_us` the sum over the layers with it.
    """

    format: str
    precision: str
    runtime: str
    device: str
    threads: int | None
    runs: int
    run_us: float | None = None
    time_us: float | None = None
    macs: int | None = None
    gmacs_per_s: float | None = None
    share_of_peak: float | None = None
    layers: list[LayerRow] = field(default_factory=list)
    reason: str | None = None

    @property
    def name(self) -> str:
        """As in `openvino-int8 on openvino`."""
        return f"{self.format}-{self.precision} on {self.runtime}"


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """All rows, and the peak they are held against: None where no engine here can measure one."""

    peak: Peak | None
    rows: list[ProfileRow]


def profile_bundle(
    bundle: Bundle, runtimes: Sequence[str], device: str, threads: int | None, runs: int
) -> ProfileReport:
    """Profile every artifact on every runtime that reads it, on the first golden frame.

    Raises:
        BadInput: the bundle has no golden frame.
        InferenceError: nothing could be profiled.
    """
    if not bundle.manifest.golden:
        raise BadInput(f"{bundle.path} has no golden frame to run: convert the model again")
    frame = read_frame(bundle.manifest.golden[0])
    pairings = list(_pairings(bundle, runtimes, device, threads, runs))
    with progress("profiling", len(pairings) + 1) as advance:
        peak = core_peak(threads)
        advance()
        for row, artifact in pairings:
            try:
                with open_session(bundle, artifact, row.runtime, device=device, threads=threads) as session:
                    _fill(row, session, bundle.preprocess, frame, peak)
            except (InferenceError, MissingDependency) as error:
                row.reason = str(error)
            advance()
    rows = [row for row, _ in pairings]
    if not any(row.layers for row in rows):
        reasons = "; ".join(sorted({row.reason or "" for row in rows})) or "no artifact fits"
        raise InferenceError(f"no layer of {bundle.path.name} could be timed: {reasons}")
    return ProfileReport(peak, rows)


def _pairings(
    bundle: Bundle, runtimes: Sequence[str], device: str, threads: int | None, runs: int
) -> Iterator[tuple[ProfileRow, Artifact]]:
    for name in runtimes or plugins.ENGINES:
        for artifact in bundle.artifacts:
            if artifact.format in plugins.runtime(name).formats:
                yield ProfileRow(artifact.format, artifact.precision, name, device, threads, runs), artifact


def print_profile(report: ProfileReport) -> None:
    """A table of layers for each row, in the order of execution, and a line of totals."""
    peak = report.peak
    if peak is not None:
        click.echo(
            f"peak of this core: {peak.int8_gmacs:.0f} GMAC/s int8, {peak.fp32_gmacs:.0f} fp32, measured just now with "
            f"wide 3x3 convolutions (int8 by {peak.runtime}, threads: {peak.threads or 'all'})"
        )
    else:
        click.echo("peak of this core: not measured, neither openvino nor onnxruntime is installed")
    columns = ["layer", "kind", "precision", "us", "time %", "MMACs", "GMAC/s", "peak %"]
    for row in report.rows:
        click.echo()
        if row.layers:
            print_table(_title(row), columns, [_cells(layer) for layer in row.layers])
            click.echo(f"by kind: {_by_kind(row.layers)}")
        else:
            whole = f" (whole runs: {_ms(row.run_us)} ms)" if row.run_us else ""
            click.echo(f"{row.name}{whole}: {row.reason}")


def _fill(row: ProfileRow, session: Session, preprocess: Preprocess, frame: Frame, peak: Peak | None) -> None:
    row.device = session.device
    feeds = {session.inputs[0].name: to_input(frame, preprocess, session.inputs[0].layout)}
    row.run_us = _run_us(session, feeds, row.runs)
    layers = profile(session, feeds, row.runs)
    row.time_us = sum(layer.time_us for layer in layers)
    counted = [layer.macs for layer in layers if layer.macs is not None]
    row.macs = sum(counted) if counted else None
    row.gmacs_per_s = row.macs / row.time_us / 1e3 if row.macs else None
    peak = peak if row.device == "cpu" else None  # a CPU's peak says nothing of an accelerator
    row.share_of_peak = peak.share_of(layers) if peak else None
    row.layers = [_layer_row(layer, row.time_us, peak) for layer in layers]


def _layer_row(layer: LayerTime, total_us: float, peak: Peak | None) -> LayerRow:
    return LayerRow(
        name=layer.name,
        kind=layer.kind,
        precision=layer.precision,
        time_us=layer.time_us,
        share=layer.time_us / total_us,
        macs=layer.macs,
        gmacs_per_s=layer.gmacs_per_s,
        share_of_peak=peak.share_of([layer]) if peak else None,
    )


def _run_us(session: Session, feeds: dict[str, Array], runs: int) -> float:
    session.run(feeds)
    times = []
    for _ in range(runs):
        start = perf_counter()
        session.run(feeds)
        times.append(perf_counter() - start)
    return float(np.median(times)) * 1e6


def _title(row: ProfileRow) -> str:
    parts = [f"{len(row.layers)} layers, {_ms(row.time_us)} ms (whole runs without a profiler {_ms(row.run_us)} ms)"]
    if row.macs is not None and row.gmacs_per_s is not None:
        parts.append(f"{row.macs / 1e6:.1f} MMACs, {row.gmacs_per_s:.1f} GMAC/s")
    if row.share_of_peak is not None:
        parts.append(f"{100 * row.share_of_peak:.1f} % of the core's peak")
    return f"{row.name} ({row.device}): {', '.join(parts)}"


def _cells(layer: LayerRow) -> list[str | None]:
    return [
        layer.name,
        layer.kind,
        layer.precision,
        f"{layer.time_us:.1f}",
        f"{100 * layer.share:.1f}",
        _number(layer.macs and layer.macs / 1e6, ".2f"),
        _number(layer.gmacs_per_s, ".1f"),
        _number(layer.share_of_peak and 100 * layer.share_of_peak, ".1f"),
    ]


def _by_kind(layers: Sequence[LayerRow]) -> str:
    """Shares of the time, largest first."""
    shares: dict[str, float] = {}
    for layer in layers:
        kind = f"{layer.kind} {layer.precision}"
        shares[kind] = shares.get(kind, 0.0) + layer.share
    return ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in sorted(shares.items(), key=lambda s: -s[1]))


def _ms(time_us: float | None) -> str:
    return f"{(time_us or 0.0) / 1e3:.2f}"


def _number(value: float | None, style: str) -> str | None:
    return None if value is None else f"{value:{style}}"
