"""`edgeseg inspect`: what a bundle is, what each of its layers costs, and what it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from edgeseg import plugins
from edgeseg.bundle import open_bundle
from edgeseg.commands.json_file import write_json
from edgeseg.commands.layer_error import ErrorRow, compare_layers, print_errors
from edgeseg.commands.measuring import in_a_folder
from edgeseg.commands.profiling import ProfileReport, print_profile, profile_bundle
from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput
from edgeseg.evidence import Parity
from edgeseg.metrics import SQNR_LIMIT_DB
from edgeseg.types import Artifact, Bundle, Manifest, Precision

_HASH = 12


@click.command(
    epilog="Example: edgeseg inspect head.edgeseg; with the time and the error of every layer: "
    "edgeseg inspect head.edgeseg --profile --error --precision int8 --json layers.json"
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--profile", is_flag=True, help="Time every layer, against the peak of this core.")
@click.option("--error", is_flag=True, help="Compare every layer with the fp32 artifact of its format.")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=click.Choice(list(plugins.RUNTIMES)),
    help="To measure on; repeatable; every engine that is installed by default.",
)
@click.option("--precision", type=click.Choice([str(p) for p in Precision]), help="To measure; all by default.")
@click.option("--device", default="auto", show_default=True, help="To measure on, as in cpu or gpu.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="To measure with.")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="To take median times of.")
@click.option("--frames", type=click.IntRange(1), help="Golden frames to compare layers on; all by default.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    callback=in_a_folder,
    help="Write everything as JSON, hashes in full.",
)
def inspect(
    bundle: Path,
    profile: bool,
    error: bool,
    runtimes: tuple[str, ...],
    precision: str | None,
    device: str,
    threads: int,
    runs: int,
    frames: int | None,
    json_path: Path | None,
) -> None:
    """Check every file of BUNDLE and say what it is: artifacts, hashes, preprocessing, gates, where it comes from.

    With --profile also the time of every layer, by the engine's own clock, on a golden frame: in which precision it
    really ran, its multiply-accumulates, and the share of what this core can do.

    With --error also what every layer loses: its SQNR against the fp32 artifact of the same format on the golden
    frames, and how far that is below the SQNR of what it takes. A layer that loses much is one to keep in float, or
    to design anew.
    """
    if not (profile or error) and (runtimes or precision):
        raise click.UsageError(f"{'--runtime' if runtimes else '--precision'} needs --profile or --error")
    if frames and not error:
        raise click.UsageError("--frames needs --error")
    opened = open_bundle(bundle)
    chosen = _only(opened, precision)
    report = profile_bundle(chosen, runtimes, device, threads, runs) if profile else None
    errors = compare_layers(opened, runtimes, precision, device, threads, frames, report) if error else None
    if json_path:
        _write(json_path, bundle, opened, report, errors)
    if report:
        print_profile(report)
    if errors:
        print_errors(errors)
    if not (report or errors):
        _print_bundle(opened)


def _only(bundle: Bundle, precision: str | None) -> Bundle:
    """The bundle with its artifacts of one precision. Raises BadInput where it has none."""
    chosen = tuple(a for a in bundle.artifacts if precision in (None, a.precision))
    if not chosen:
        there = ", ".join(a.name for a in bundle.artifacts) or "nothing"
        raise BadInput(f"{bundle.path.name} has no {precision} artifact, it has {there}")
    return replace(bundle, manifest=replace(bundle.manifest, artifacts=chosen))


def _write(
    path: Path, bundle: Path, opened: Bundle, report: ProfileReport | None, errors: list[ErrorRow] | None
) -> None:
    from edgeseg.boards.detect import describe

    content = _described(opened) | {
        "schema": 1,
        "bundle": str(bundle),
        "board": describe() if report or errors else None,
        "profile": report,
        "errors": errors,
    }
    write_json(path, content)


def _described(bundle: Bundle) -> dict[str, Any]:
    """The manifest as plain types, file paths relative to the bundle."""

    def relative(value: Any) -> str:
        if not isinstance(value, Path):
            raise NotImplementedError(f"{type(value)} has no place in JSON")
        return value.relative_to(bundle.path).as_posix()

    plain: dict[str, Any] = msgspec.to_builtins(bundle.manifest, enc_hook=relative)
    return plain


def _print_bundle(bundle: Bundle) -> None:
    manifest, described = bundle.manifest, _described(bundle)
    title = f"{manifest.name}: {len(bundle.artifacts)} artifacts, every file has the hash of the manifest"
    columns = ["artifact", "MB", "SHA-256", "logit error", "agreement", "SQNR dB", "Dice"]
    print_table(title, columns, [_artifact_cells(a, bundle) for a in bundle.artifacts])
    for refusal in manifest.refused:
        click.echo(f"refused: {refusal.format}-{refusal.precision}: {refusal.reason}")
    click.echo()
    for name, value in _facts(manifest, described):
        click.echo(f"{name}: {value}")


def _artifact_cells(artifact: Artifact, bundle: Bundle) -> list[str | None]:
    return [
        artifact.name,
        f"{artifact.size_bytes / 1e6:.2f}",
        " ".join(f"{record.path.name} {record.sha256[:_HASH]}" for record in artifact.files),
        *_parity_cells(artifact.parity),
    ]


def _parity_cells(parity: Parity | None) -> list[str | None]:
    if parity is None:
        return [None] * 4
    return [
        _number(parity.logit_error, ".2e"),
        _number(parity.agreement, ".5f"),
        None if parity.sqnr_db == SQNR_LIMIT_DB else _number(parity.sqnr_db, ".1f"),
        _number(parity.dice and 100 * parity.dice, ".2f"),
    ]


def _number(value: float | None, style: str) -> str | None:
    return None if value is None else f"{value:{style}}"


def _facts(manifest: Manifest, described: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What there is to say beside the artifacts, in a line each."""
    made = described["provenance"]
    return [
        ("classes", ", ".join(manifest.classes)),
        ("preprocess", _line(described["preprocess"])),
        ("gates", _line(described["gates"])),
        ("golden frames", str(len(manifest.golden))),
        *((name, _line(made[name])) for name in ("source", "training", "network", "calibration", "evaluation")),
        *(("step", _line(step)) for step in made["steps"]),
        *_compression(manifest.provenance.compression),
        ("tools", _line(made["tools"])),
        ("made", ", ".join(filter(None, (made["created"], made["machine"]))) or "not recorded"),
    ]


def _compression(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line for each part of the record of distillation and pruning."""
    if not record:
        return [("compression", "none, it is the source itself")]
    return [(f"compression, {part}", _line(value)) for part, value in record.items()]


def _line(value: Any) -> str:
    """Nested plain types as `key value, key (key value, key value)`; of a list of records only how many."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_nested(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        records = any(isinstance(item, Mapping) for item in value)
        return f"{len(value)} entries" if records else " ".join(_nested(item) for item in value)
    return "off" if value is None else str(value)


def _nested(value: Any) -> str:
    text = _line(value)
    return f"({text})" if isinstance(value, Mapping) else text
