"""`edgeseg frontier`: which model is the best trade of accuracy against latency and size, measured together, drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edgeseg import plugins
from edgeseg.commands.frontier_models import check_classes, open_bundles, open_sources
from edgeseg.commands.frontier_run import Entry, Plan, describe_data, load_entries, measure, point
from edgeseg.commands.measuring import engine_options, evaluation_frames, hc_offset
from edgeseg.commands.ranges import FiniteRange
from edgeseg.commands.remembering import Remembering, command_line
from edgeseg.commands.sources import source_options
from edgeseg.commands.table import print_table
from edgeseg.dataset import read_folder
from edgeseg.durable import write_file
from edgeseg.errors import BadInput
from edgeseg.frontier import columns, document
from edgeseg.frontier.document import Frontier, Limits, Point
from edgeseg.frontier.judging import judge, reference_of

_TOOLS = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "ai-edge-litert", "torch")


def _limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option(
            "--dice-drop",
            type=FiniteRange(0, 0.2),
            help="Dice may be lower than the reference's by this fraction; 0.005, half a point, by default.",
        ),
        click.option(
            "--hc-increase",
            "hc_increase_mm",
            type=FiniteRange(0),
            help="Head circumference error may be larger by these mm; 0.3 by default.",
        ),
        click.option("--worst-dice", type=FiniteRange(0, 1), help="No frame may have a lower Dice; 0.85 by default."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    cls=Remembering,
    epilog="Example: edgeseg frontier dense.edgeseg student.edgeseg --source dense.safetensors --data frames "
    "-o frontier; the same with other limits, nothing measured again: edgeseg frontier --from frontier/frontier.json "
    "--worst-dice 0.9 -o strict",
)
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]...", type=click.Path(path_type=Path))
@click.option("--source", "sources", multiple=True, help="Repeatable: measure this source in torch too; needs torch.")
@click.option("--data", type=click.Path(path_type=Path), help="Frames folder with masks, held out from training.")
@engine_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=30, show_default=True, help="Turns of each candidate.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed runs a turn, after an untimed one."
)
@click.option("--reference", help="Point that differences start from; the first source, or the first fp32 artifact.")
@_limit_options
@click.option(
    "--from",
    "saved",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Draw this frontier.json again, without measuring.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@source_options
@click.pass_context
def frontier(
    ctx: click.Context,
    /,
    bundles: tuple[Path, ...],
    sources: tuple[str, ...],
    data: Path | None,
    split: str | None,
    runtimes: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int,
    repeats: int,
    reference: str | None,
    dice_drop: float | None,
    hc_increase_mm: float | None,
    worst_dice: float | None,
    saved: Path | None,
    output: Path,
    **options: Any,
) -> int:
    """Measure any set of BUNDLEs and sources together and draw accuracy against latency and size.

    All candidates take turns in one run and see the same held frames, each at its own input size. A point is dominated
    where another is at least as good in median latency, Dice, head circumference error and worst frame, and better in
    one of them. Writes frontier.json (with every sample), frontier.csv, frontier.png and frontier.html. What
    describes a source (--weights, --size and so on) holds for every --source.
    """
    if saved and (bundles or sources or data):
        raise click.UsageError("--from draws what was measured before, it takes no BUNDLE, --source or --data")
    if not saved and not (bundles or sources):
        raise click.UsageError("nothing to measure: give a BUNDLE, --source or --from")
    plugins.require("report", "drawing a frontier")
    output.mkdir(parents=True, exist_ok=True)
    if saved:
        found = document.read(saved)
    elif data is None:
        raise click.UsageError("missing --data, a folder of held frames")
    else:
        plan = Plan(runtimes, device, threads, rounds, repeats)
        found = _measured(bundles, sources, options, data, split, plan, reference)
        found = replace(found, command=command_line(ctx))
    changes = {"dice_drop": dice_drop, "hc_increase_mm": hc_increase_mm, "worst_dice": worst_dice}
    limits = replace(found.limits, **{name: value for name, value in changes.items() if value is not None})
    judged = judge(replace(found, limits=limits, reference=reference or found.reference))
    write(judged, output)
    report(judged)
    return 1 if any(p.state == "failed" for p in judged.rows) else 0


def _measured(
    bundles: Sequence[Path],
    specs: Sequence[str],
    options: dict[str, Any],
    data: Path,
    split: str | None,
    plan: Plan,
    reference: str | None,
) -> Frontier:
    from edgeseg.boards.detect import describe
    from edgeseg.converters.provenance import tool_versions

    folder = evaluation_frames(data, split)
    sources = open_sources(specs, options)
    opened = open_bundles(bundles, sources)
    classes = len(check_classes([model for model, _ in (*sources, *opened)]))
    with contextlib.ExitStack() as stack:
        entries = load_entries(stack, opened, sources, plan)
        _check_reference(reference, entries)
        offset = hc_offset(read_folder(data), classes)
        measure(entries, folder, classes, offset, plan)
        points = tuple(point(e) for e in entries)
    return Frontier(
        rows=points,
        data=describe_data(folder, offset),
        reference=reference or reference_of(points),
        limits=Limits(),
        machine=describe(),
        versions=tool_versions(*_TOOLS),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        threads=plan.threads,
        rounds=plan.rounds,
        repeats=plan.repeats,
    )


def _check_reference(reference: str | None, entries: Sequence[Entry]) -> None:
    """Known before minutes of measuring, not after."""
    names = [point(e).name for e in entries if e.candidate]
    if reference is not None and reference not in names:
        raise BadInput(f"the reference {reference!r} is none of the points that run here: {', '.join(names)}")


def write(frontier: Frontier, folder: Path) -> None:
    """Write the document, the table and the pictures into a folder, each file whole or not at all."""
    from edgeseg.frontier.page import page
    from edgeseg.frontier.plot import draw

    write_file(folder / "frontier.json", document.encode(frontier))
    write_file(folder / "frontier.csv", columns.to_csv(frontier).encode())
    drawing = draw(frontier)
    write_file(folder / "frontier.png", drawing.png)
    write_file(folder / "frontier.html", page(frontier, drawing.svg).encode())


def report(frontier: Frontier) -> None:
    """Print the table, what could not be measured, and the best point."""
    headings, cells = columns.table(frontier)
    title = f"{len(frontier.data.frames)} frames of {frontier.data.folder} {frontier.data.split}".strip()
    styles = [_style(p, frontier.best) for p in frontier.by_latency]
    print_table(f"{title}, {frontier.threads} thread(s), {frontier.machine}", headings, cells, styles=styles)
    for line in (*columns.notes(frontier), columns.limits_line(frontier), columns.headline(frontier)):
        click.echo(line)


def _style(point: Point, best: str | None) -> str | None:
    if point.state == "failed":
        return "red"
    return "bold green" if point.name == best else "dim" if point.dominated else None
