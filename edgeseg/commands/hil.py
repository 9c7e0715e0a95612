"""`edgeseg hil`: the same suite on every board."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import click

from edgeseg.commands.hil_emulate import emulate
from edgeseg.commands.hil_fleet import fleet
from edgeseg.commands.hil_report import report
from edgeseg.commands.ranges import FiniteRange
from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput

_NOT_NEGATIVE = FiniteRange(min=0)


@click.group(
    epilog="Example:  edgeseg hil run --board local head.edgeseg -o station",
    short_help="Prove bundles on boards: deploy, verify, bench, soak, record.",
)
def hil() -> None:
    """Hardware in the loop: prove bundles on this machine, on emulated boards and on real ones over ssh."""


hil.add_command(emulate)
hil.add_command(report)
hil.add_command(fleet)


@hil.command(
    "run",
    epilog="\b\nExample:\n  edgeseg hil run --env lab.toml --board cart-1 *.edgeseg -o station",
    short_help="Prove bundles on boards, and record it.",
)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--board",
    "names",
    multiple=True,
    metavar="NAME",
    help='A board of --env, an emulated one, or "local"; repeatable. By default all of --env.',
)
@click.option(
    "--env", "environment", type=click.Path(path_type=Path), help="The boards of a lab, TOML: see docs/hil.md."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("station"),
    show_default=True,
    help="Folder of the station record.",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="RECORD", help="Go on with this record.jsonl.")
@click.option(
    "--wait",
    type=_NOT_NEGATIVE,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a board that another runner has is waited for.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    metavar="N",
    help="How often a bundle is tried again after its connection was lost.",
)
@click.option(
    "--quarantine",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="After how many lost connections a board is left alone.",
)
@click.option(
    "--reconnect",
    type=_NOT_NEGATIVE,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a board that went away is waited for.",
)
def run(
    bundles: tuple[Path, ...],
    names: tuple[str, ...],
    environment: Path | None,
    output: Path,
    resume: Path | None,
    wait: float,
    retries: int,
    quarantine: int,
    reconnect: float,
) -> int:
    """Prove every one of BUNDLES on every board: deploy, verify, warm up, bench, soak, collect.

    Boards work in parallel, each for one runner at a time. What happens is in the station record, OUTPUT/record.jsonl,
    as it happens, and in OUTPUT/junit.xml at the end. The exit code is 1 unless every bundle passed on every board.
    """
    from edgeseg.boards.hil.bundles import read_candidate
    from edgeseg.boards.hil.choosing import chosen_boards
    from edgeseg.boards.hil.harness import RunOptions, run_suite

    if not names and environment is None:
        raise click.UsageError("which board? --board NAME, or --env FILE")
    entries = chosen_boards(names, environment)
    candidates = [read_candidate(path) for path in bundles]
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise BadInput("two bundles have the same name: a record could not tell them apart, rename one")
    lock = threading.Lock()

    def say(board: str, line: str) -> None:
        with lock:
            click.echo(f"{board}: {line}")

    options = RunOptions(wait, retries, quarantine, reconnect)
    outcomes = run_suite(entries, candidates, output, options=options, resume=resume, say=say)
    print_table(
        "", ["board", "bundle", "status", "reason"], [[o.board, o.bundle, o.status, o.reason] for o in outcomes]
    )
    click.echo(f"record: {resume or output / 'record.jsonl'}")
    return 0 if all(outcome.status == "passed" for outcome in outcomes) else 1


@hil.command("probe", epilog="Example:  edgeseg hil probe --work /var/tmp/edgeseg-hil")
@click.option("--work", type=click.Path(path_type=Path), default=Path("/var/tmp"), help="The harness's folder here.")
@click.option("--clear", "clearing", is_flag=True, help="Remove what runs that were killed left there.")
def probe(work: Path, clearing: bool) -> None:
    """Print what this board is, as JSON: what a harness asks it first."""
    import msgspec

    from edgeseg.boards.hil.facts import clear, read_facts

    if clearing:
        clear(work)
    sys.stdout.write(msgspec.json.encode(read_facts(work)).decode() + "\n")
