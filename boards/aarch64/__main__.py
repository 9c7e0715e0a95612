"""`python -m edgeseg.boards.aarch64`: build an aarch64 board, and run programs on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from edgeseg.boards.aarch64.board import PROGRAMS, open_board
from edgeseg.boards.aarch64.build import build
from edgeseg.boards.aarch64.cores import CORES, DEFAULT_CORE
from edgeseg.boards.aarch64.tools import QEMU, require
from edgeseg.errors import BadInput, EdgesegError

_FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
_REST = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
def main() -> None:
    """Build an ARM board that needs no hardware, and run programs on it. For correctness; it is slow."""


@main.command("build", epilog="Example:  python -m edgeseg.boards.aarch64 build build/aarch64")
@_FOLDER
@click.option("--core", type=click.Choice(list(CORES)), default=DEFAULT_CORE, show_default=True, help="Its cores.")
def build_board(folder: Path, core: str) -> None:
    """Build the board in DIR, or bring the one that is there up to date."""
    board = build(folder, core, lambda line: click.echo(line, err=True))
    click.echo(f"{board.edgeseg} runs edgeseg on {CORES[core].boards}: qemu's {core}")


@main.command(
    context_settings=_REST, epilog="Example:  python -m edgeseg.boards.aarch64 run build/aarch64 edgeseg runtimes"
)
@_FOLDER
@click.argument("program", type=click.Choice(PROGRAMS))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(folder: Path, program: str, arguments: tuple[str, ...]) -> None:
    """Run python or edgeseg of the board in DIR with ARGUMENTS; paths are this machine's."""
    board = open_board(folder)
    require(QEMU)
    path = board.folder / "bin" / program
    os.execv(path, [str(path), *arguments])


if __name__ == "__main__":
    try:
        main(prog_name="python -m edgeseg.boards.aarch64")
    except EdgesegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, BadInput) else 1)
