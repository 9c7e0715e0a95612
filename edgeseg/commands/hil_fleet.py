"""`edgeseg hil fleet`: the boards of a lab for several runners, by labgrid."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput

_LISTEN = "127.0.0.1:20408"


def _coordinator_option() -> Callable[..., Callable[..., Any]]:
    return click.option(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help=f"Of labgrid; by default $LG_COORDINATOR, else {_LISTEN}.",
    )


@click.group(
    epilog="Example:  edgeseg hil fleet list", short_help="Boards that several runners share: coordinator, exporter."
)
def fleet() -> None:
    """A lab's boards for several runners: labgrid lends each board to one of them at a time. See docs/fleet.md."""


@fleet.command(epilog="Example:  edgeseg hil fleet coordinator")
@click.option(
    "--listen",
    default=_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Whoever reaches it can take any board: leave it at this machine, and reach it through ssh -L.",
)
@click.option("--state", type=click.Path(path_type=Path), help="Folder of its places, in your home by default.")
def coordinator(listen: str, state: Path | None) -> None:
    """Run labgrid's coordinator until it is stopped."""
    from edgeseg.boards.fleet.lab import run_coordinator, state_folder

    run_coordinator(listen, state or state_folder())


@fleet.command(epilog="Example:  edgeseg hil fleet export lab.toml --name basement")
@click.argument("environment", type=click.Path(path_type=Path))
@click.option("--board", "names", multiple=True, metavar="NAME", help="Of ENVIRONMENT, repeatable; all by default.")
@click.option("--name", default=None, help="Of the exporter; this machine's by default.")
@_coordinator_option()
def export(environment: Path, names: tuple[str, ...], name: str | None, coordinator: str) -> None:
    """Offer the boards of ENVIRONMENT that have a host and a user, until it is stopped.

    Each gets a place of its name, with its profile as the tag `board`.
    """
    from edgeseg.boards.fleet.lab import run_exporter
    from edgeseg.boards.fleet.names import coordinator_address
    from edgeseg.boards.hil.environment import read_environment

    lab = read_environment(environment)
    name = name or socket.gethostname()
    if "/" in name:
        raise BadInput(f"{name!r} cannot name an exporter, expected no slash")
    entries = [lab.board(board) for board in names] or list(lab.boards)
    run_exporter(entries, coordinator_address(coordinator or lab.fleet.coordinator), name)


@fleet.command("list", epilog="Example:  edgeseg hil fleet list")
@_coordinator_option()
def list_fleet(coordinator: str) -> None:
    """List the places of a fleet, and who has them."""
    from edgeseg.boards.fleet.lab import list_places
    from edgeseg.boards.fleet.names import coordinator_address

    columns = ["place", "tags", "state", "by", "since", "board", "exporter", "labgrid"]
    rows = [
        [p.name, *(word or None for word in (p.tags, p.state, p.holder, p.since, p.board, p.exporter, p.labgrid))]
        for p in list_places(coordinator_address(coordinator))
    ]
    print_table("", columns, rows)


@fleet.command(epilog="Example:  edgeseg hil fleet release cart-1")
@click.argument("places", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also from a run that may be at work: it ends with an error.")
@_coordinator_option()
def release(places: tuple[str, ...], force: bool, coordinator: str) -> None:
    """Give back PLACES that dead runs left. Those of this machine also go back when the next run asks for a place."""
    from edgeseg.boards.fleet.lab import release_place
    from edgeseg.boards.fleet.names import coordinator_address

    for place in places:
        holder = release_place(coordinator_address(coordinator), place, force=force)
        click.echo(f"{place}: taken back from {holder}")
