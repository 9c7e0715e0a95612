"""`edgeseg boards`: which boards are known, and what this machine is."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgeseg.boards.detect import Board, describe, detect
from edgeseg.boards.profile import Figure, profile, profiles
from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput


@click.group(epilog="Example:  edgeseg boards detect --json board.json", short_help="List, show and detect boards.")
def boards() -> None:
    """List the boards edgeseg has a profile of, show one, or find out what this machine is."""


@boards.command("list", epilog="Example:  edgeseg boards list")
def list_boards() -> None:
    """List the boards that have a profile."""
    rows = [
        [p.name, p.title, " ".join(p.architectures) or "any", " ".join(e.runtime for e in p.engines), _yes(p.verified)]
        for p in profiles().values()
    ]
    print_table("", ["board", "title", "architecture", "runtimes to try", "ran here"], rows)


@boards.command(epilog="Example:  edgeseg boards show raspberry-pi-5")
@click.argument("name")
def show(name: str) -> None:
    """Show one profile: engines worth trying, and figures with their sources."""
    try:
        found = profile(name)
    except BadInput as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{found.title} ({found.name}, {' '.join(found.architectures) or 'any architecture'})")
    for note in found.notes:
        click.echo(f"  {note}")
    engines = [[e.runtime, " ".join(e.devices), e.note or None] for e in found.engines]
    print_table("", ["runtime", "devices", "note"], engines)
    if found.figures:
        rows = [[key, _value(f), _yes(f.verified), f.source or None] for key, f in found.figures.items()]
        print_table("", ["figure", "value", "verified", "source"], rows)


@boards.command("detect", epilog="Example:  edgeseg boards detect --json board.json")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as JSON too.")
def detect_board(json_file: Path | None) -> None:
    """Find out what this machine is.

    Cores and memory are what this process may use, within the limits of its control groups.
    """
    board = detect()
    if json_file is not None:
        _write_json(json_file, board)
    click.echo(describe(board))
    details = {
        "board": board.model,
        "operating system": ", ".join(p for p in (board.os, board.kernel) if p),
        "instructions": " ".join(board.flags),
        "profile": board.profile,
    }
    for label, value in details.items():
        click.echo(f"  {label}: {value or 'unknown'}")
    for note in board.notes:
        click.echo(f"  note: {note}")


def _write_json(path: Path, board: Board) -> None:
    document = {"schema": 1, "description": describe(board), **msgspec.to_builtins(board)}
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error


def _value(figure: Figure) -> str:
    value = figure.value if isinstance(figure.value, str) else f"{figure.value:g}"
    return f"{value} {figure.unit}".strip()


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
