"""`edgeseg hil emulate`: boards without hardware."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

from edgeseg.commands.ranges import FiniteRange
from edgeseg.commands.table import print_table
from edgeseg.plugins import ENGINES

_SIZE = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)
_FACTOR = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = _SIZE.fullmatch(value)
    if not found or not int(found[1]):
        raise click.BadParameter(f"{value!r}, expected bytes as in 512M")
    return int(found[1]) * _FACTOR[found[2].upper()]


def _size_option(name: str, field: str, help: str) -> Callable[..., Callable[..., None]]:
    return click.option(name, field, callback=_size, metavar="SIZE", help=help)


@click.group(
    epilog="Example:  edgeseg hil emulate up slow --cpus 0.5 --memory 512M", short_help="Boards without hardware."
)
def emulate() -> None:
    """Boards on this machine with a root, a network, an sshd and limits of their own; needs root and openssh-server."""


@emulate.command(epilog="Example:  edgeseg hil emulate up slow --cpus 0.5 --memory 512M --disk 64M")
@click.argument("name")
@click.option("--cpus", type=FiniteRange(min=0.01), help="On average; all by default.")
@_size_option("--memory", "memory_bytes", "Of all its processes, without swap; all by default.")
@_size_option("--disk", "disk_bytes", "Of /data, a file system of its own; this machine's by default.")
@click.option("--without", multiple=True, type=click.Choice(ENGINES), help="An engine not to have there; repeatable.")
def up(
    name: str, cpus: float | None, memory_bytes: int | None, disk_bytes: int | None, without: tuple[str, ...]
) -> None:
    """Start the board NAME; `edgeseg hil run --board NAME` finds it."""
    from edgeseg.boards.emulated.starting import up as start

    board = start(name, cpus=cpus, memory_bytes=memory_bytes, disk_bytes=disk_bytes, without=without)
    click.echo(
        f"{name}: up at {board.address}, limits by {board.limits}; ssh -i {board.folder}/client root@{board.address}"
    )
    if board.limits == "prlimit":
        click.echo(
            f"{name}: no control group can be written here: memory is limited by process, the CPU is not", err=True
        )


@emulate.command(epilog="Example:  edgeseg hil emulate down slow")
@click.argument("names", nargs=-1, required=True)
def down(names: tuple[str, ...]) -> None:
    """Stop the boards NAMES and remove all of them."""
    from edgeseg.boards.emulated.starting import down as stop

    for name in names:
        stop(name)
        click.echo(f"{name}: down")


@emulate.command("list", epilog="Example:  edgeseg hil emulate list")
def list_emulated() -> None:
    """List the emulated boards of this machine."""
    from edgeseg.boards.emulated.board import list_boards

    rows = [
        [
            board.name,
            "up" if board.running else "stale",
            board.address,
            None if board.cpus is None else f"{board.cpus:g}",
            None if board.memory_bytes is None else f"{board.memory_bytes >> 20} MiB",
            board.limits,
        ]
        for board in list_boards()
    ]
    print_table("", ["board", "state", "address", "CPUs", "memory", "limits by"], rows)
