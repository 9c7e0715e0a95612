"""`edgeseg verify`: prove a bundle against its source's results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgeseg.bundle import open_bundle
from edgeseg.commands.measuring import (
    Candidate,
    evaluation_frames,
    folder_references,
    golden_references,
    hc_offset,
    load_candidates,
    measure_accuracy,
    measuring_options,
    torch_candidates,
)
from edgeseg.commands.progress import progress
from edgeseg.commands.rows import Report, intervals, print_rows
from edgeseg.dataset import read_folder
from edgeseg.errors import BadInput
from edgeseg.types import Bundle, Precision


@click.command(
    epilog="Example: edgeseg verify head.edgeseg; with frames: "
    "edgeseg verify head.edgeseg --data frames --json verify.json"
)
@click.argument("bundle", type=click.Path(path_type=Path))
@measuring_options
@click.option("--threads", type=click.IntRange(1), help="CPU threads; the engines' own choice by default.")
def verify(
    bundle: Path,
    data: Path | None,
    split: str | None,
    runtimes: tuple[str, ...],
    device: str,
    threads: int | None,
    json_path: Path | None,
    source: str | None,
    **options: Any,
) -> int:
    """Check every file of BUNDLE, run every artifact on every runtime present, hold the differences against the gates.

    Without --data on the golden frames, whose results by the source are in the bundle; this takes seconds.
    """
    from edgeseg.boards.detect import describe

    opened = open_bundle(bundle)
    if source and not data:
        raise BadInput("--source needs --data: the golden frames already have the source's results")
    with load_candidates(opened, runtimes, device, threads) as (candidates, missing):
        report = Report(str(bundle), describe())
        baselines = torch_candidates(source, options, opened, threads) if source else []
        compare_candidates(opened, candidates, baselines, report, data, split)
        for candidate in candidates:
            if candidate.session is not None:
                candidate.row.executed = candidate.session.execution()
    report.rows += missing
    if json_path:
        report.write(json_path)
    print_rows(f"{opened.manifest.name}: against {report.reference}", report.rows)
    for line in intervals(report.rows):
        click.echo(line)
    failed = [r for r in report.rows if r.passed is False]
    passed = [r for r in report.rows if r.passed]
    absent = sum(r.passed is None and r.format != "torch" for r in report.rows)
    click.echo(f"{len(passed)} passed, {len(failed)} failed, {absent} not run here")
    return 1 if failed or not passed else 0


def compare_candidates(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    baselines: Sequence[Candidate],
    report: Report,
    data: Path | None,
    split: str | None,
) -> None:
    """Fill the accuracy of all rows, on the frames of `data` or the golden frames, and put the rows into the report.

    Args:
        bundle: whose gates hold.
        candidates: its loaded artifacts.
        baselines: the torch source; where there is none, an fp32 artifact stands in for it on the frames of `data`.
        report: gets the rows, and what they were compared with.
        data: frames folder.
        split: of its index.
    """
    everything = [*candidates, *baselines]
    report.rows = [c.row for c in everything]
    if data is None:
        count = len(bundle.manifest.golden)
        report.reference = f"the source's results on {count} golden frames"
        references, offset = golden_references(bundle), 0.0
    else:
        folder = evaluation_frames(data, split)
        count = len(folder)
        reference = baselines[0] if baselines else _stand_in(candidates)
        report.data = f"{folder.path.name} {folder.split}".strip()
        what = "the source" if baselines else f"{reference.row.name}, which stands in for the source,"
        report.reference = f"{what} on {count} frames of {report.data}"
        references = folder_references(folder, bundle, reference.run)
        offset = hc_offset(read_folder(data), len(bundle.classes))
    with progress("comparing", count) as advance:
        measure_accuracy(everything, references, bundle, offset, advance)


def _stand_in(candidates: Sequence[Candidate]) -> Candidate:
    """The fp32 artifact closest to the source at conversion."""
    exact = [c for c in candidates if c.artifact and c.row.precision == Precision.FP32]
    if not exact:
        raise BadInput("the bundle has no fp32 artifact that runs here to compare with: give --source")
    return min(exact, key=lambda c: c.artifact.parity.logit_error if c.artifact and c.artifact.parity else 1.0)
