"""`edgeseg fuzz`: hold a bundle, and edgeseg with it, to what an attacker and a bad disk would do."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from edgeseg.commands.progress import progress
from edgeseg.commands.table import print_table
from edgeseg.durable import write_file

if TYPE_CHECKING:
    from edgeseg.fuzz.outcomes import Outcomes

PARTS = ("mutations", "engines", "bits", "hangs", "corpus", "kills")
_COLUMNS = ("part", "what", "trials", "outcome", "longest s", "verdict")


@click.command(
    epilog="Example: edgeseg fuzz head.edgeseg; all of it, as released: edgeseg fuzz head.edgeseg --full "
    "--json fuzz.json; one thing: edgeseg fuzz head.edgeseg --part mutations --only tflite --count 10000"
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Public key that signed the bundle, repeatable; a key made for the occasion signs a copy by default.",
)
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Repeatable; all parts by default.")
@click.option(
    "--only", default="", help="Only what has this in its name: a kind of file, an operation, a hostile file."
)
@click.option("--count", type=click.IntRange(1), help="Trials of each row, instead of the small numbers of a minute.")
@click.option("--full", is_flag=True, help="The numbers that edgeseg is held to: hours.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed makes the same trials.")
@click.option(
    "--disk",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder in which writers are killed; the system's temporary folder by default.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all results here too."
)
def fuzz(
    bundle: Path,
    keys: tuple[Path, ...],
    parts: tuple[str, ...],
    only: str,
    count: int | None,
    full: bool,
    seed: int,
    disk: Path | None,
    json_path: Path | None,
) -> int:
    """Mutate a copy of BUNDLE, feed edgeseg hostile files and kill its writers; exit 1 where anything gets through.

    mutations: bytes and fields of every kind of file, all checks on; refused before any parser. engines: the same
    unchecked, in isolated engines and readers. bits: single flipped bits. hangs: models without end. corpus: files that
    try to escape, to hang or to take all memory. kills: SIGKILL while a bundle is written, unpacked and installed.
    """
    from edgeseg.fuzz.runs import FULL, Counts, Part, jobs
    from edgeseg.fuzz.workbench import workbench

    counts = FULL if full else Counts()
    rows: list[Outcomes] = []
    start = perf_counter()
    with workbench(bundle, keys) as bench:
        chosen = [Part(part) for part in parts]
        numbers = counts.only(count) if count else counts
        for name, total, run in jobs(bench, chosen, numbers, seed, only=only, folder=disk):
            with progress(name, total) as advance:
                done = run(advance)
            for row in done:
                _say(row)
            rows += done
            if json_path:
                _write(json_path, bundle, seed, rows)
    title = f"{bundle}: {sum(r.trials for r in rows)} trials in {perf_counter() - start:.0f} s, seed {seed}"
    print_table(title, _COLUMNS, [_cells(r) for r in rows], styles=["green" if r.passed else "red" for r in rows])
    missed = sum(r.missed for r in rows)
    click.echo(f"{missed} got through" if missed else "nothing got through")
    return 0 if all(r.passed for r in rows) else 1


def _say(row: Outcomes) -> None:
    for miss in row.misses:
        click.echo(f"{row.part} {row.what}: {miss}", err=True)
    if row.missed > len(row.misses):
        click.echo(f"{row.part} {row.what}: {row.missed - len(row.misses)} more", err=True)


def _cells(row: Outcomes) -> tuple[str | int, ...]:
    outcome = ", ".join(f"{count} {name}" for name, count in row.counts.most_common())
    notes = ", ".join(f"{name} {value}" for name, value in row.notes.items() if isinstance(value, int | float))
    outcome = f"{outcome}; {notes}" if notes else outcome
    return row.part, row.what, row.trials, outcome, f"{row.longest_s:.2f}", "passed" if row.passed else "MISSED"


def _write(path: Path, bundle: Path, seed: int, rows: list[Outcomes]) -> None:
    content = {"schema": 1, "bundle": str(bundle), "seed": seed, "rows": [row.as_dict() for row in rows]}
    write_file(path, json.dumps(content, indent=2).encode() + b"\n")
