"""A lab's side of a fleet: its coordinator, an exporter made from an environment file, places and who has them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edgeseg.boards.fleet.names import BOARD_TAG, EXPORTER_CLASS, EXPORTER_GROUP, SERVICE
from edgeseg.boards.fleet.owner import Owner, describe_owner, parse_owner
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.errors import BadInput, BoardBusy, BoardError, EdgesegError
from edgeseg.plugins import require

if TYPE_CHECKING:
    from edgeseg.boards.fleet.session import Session

_NEEDED_FOR = "edgeseg hil fleet"


@dataclass(frozen=True, slots=True)
class PlaceState:
    """A place as `edgeseg hil fleet list` shows it.

    Attributes:
        name, tags: of the place.
        state: "free", "held", "reserved", or why it cannot be used.
        holder, since: who has it, for people, and since when, UTC; "" for nobody.
        board: where its board is, "" where nobody offers one.
        exporter, labgrid: that offers it, and its version where it tells.
    """

    name: str
    tags: str
    state: str
    holder: str
    since: str
    board: str
    exporter: str
    labgrid: str


def state_folder() -> Path:
    """Where the coordinator keeps its places and exporters their configuration."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgeseg" / "fleet"


def run_coordinator(listen: str, folder: Path) -> NoReturn:
    """Become labgrid's coordinator, which keeps its places in the folder. Raises MissingDependency, BadInput."""
    require("fleet", _NEEDED_FOR)
    _make(folder)
    os.chdir(folder)
    _become("labgrid.remote.coordinator", "--listen", listen)


def run_exporter(entries: Sequence[BoardEntry], coordinator: str, name: str) -> NoReturn:
    """Make the places of boards that are not there yet, and become an exporter that offers the boards.

    Raises MissingDependency, CoordinatorUnreachable, BadInput where there is no board to offer, BoardError where a
    place is another exporter's.
    """
    require("fleet", _NEEDED_FOR)
    offered = [entry for entry in entries if entry.transport != "local" and entry.host and entry.user]
    if not offered:
        raise BadInput("no board to offer, expected host and user of at least one")
    asyncio.run(_make_places(offered, coordinator, name))
    path = state_folder() / f"exporter-{name}.yaml"
    _make(path.parent)
    path.write_text(exporter_config(offered, version("labgrid")), encoding="utf-8")
    _become("labgrid.remote.exporter", "--coordinator", coordinator, "--name", name, str(path))


def exporter_config(entries: Sequence[BoardEntry], labgrid: str) -> str:
    """The configuration of an exporter that offers boards and tells its version of labgrid."""
    groups: dict[str, object] = {
        entry.place or entry.name: {SERVICE: {"address": entry.host, "port": entry.port, "username": entry.user}}
        for entry in entries
    }
    groups[EXPORTER_GROUP] = {EXPORTER_CLASS: {"labgrid": labgrid}}
    # JSON is YAML; labgrid takes it for a template.
    return "{% raw %}" + json.dumps(groups, indent=1) + "{% endraw %}\n"


def list_places(coordinator: str) -> list[PlaceState]:
    """All places of a fleet. Raises MissingDependency, CoordinatorUnreachable."""
    require("fleet", _NEEDED_FOR)

    async def ask() -> list[PlaceState]:
        async with _connected(coordinator) as session:
            reserved = {r.token: r.owner for r in await session.reservations()}
            return [_state(session, name, reserved) for name in sorted(session.places)]

    return asyncio.run(ask())


def release_place(coordinator: str, name: str, *, force: bool = False) -> str:
    """Give back a place that a dead run of this machine holds, or, by force, anybody's; who held it.

    Raises MissingDependency, CoordinatorUnreachable, BadInput where there is no such place, BoardBusy where its holder
    may be alive.
    """
    require("fleet", _NEEDED_FOR)

    async def give_back() -> str:
        async with _connected(coordinator) as session:
            holder = str(session.place(name).acquired or "")
            if not holder:
                raise BadInput(f"place {name} is free already")
            owner = parse_owner(holder)
            if not force and not (owner and owner.dead):
                raise BoardBusy(
                    f"place {name} is held by {describe_owner(holder)}, which may be at work: end it there, "
                    "or take the place away from it (--force)",
                    owner.run if owner else "",
                )
            await session.release(name, holder)
            return describe_owner(holder)

    return asyncio.run(give_back())


async def _make_places(entries: Sequence[BoardEntry], coordinator: str, exporter: str) -> None:
    from labgrid.remote.generated import labgrid_coordinator_pb2 as words

    async with _connected(coordinator) as session:
        for entry in entries:
            name = entry.place or entry.name
            pattern = f"{exporter}/{name}/{SERVICE}"
            if name not in session.places:
                await session.ask("AddPlace", words.AddPlaceRequest(name=name))
                await session.ask("AddPlaceMatch", words.AddPlaceMatchRequest(placename=name, pattern=pattern))
            elif [repr(match) for match in session.places[name].matches] != [pattern]:
                others = ", ".join(map(repr, session.places[name].matches)) or "nothing"
                raise BoardError(
                    f"place {name} is there already, for {others}: name the board's place differently, "
                    f"or remove it (labgrid-client -p {name} delete)"
                )
            if entry.profile:
                tags = {BOARD_TAG: entry.profile}
                await session.ask("SetPlaceTags", words.SetPlaceTagsRequest(placename=name, tags=tags))


def _connected(coordinator: str) -> AbstractAsyncContextManager[Session]:
    from edgeseg.boards.fleet.session import connected

    return connected(coordinator, Owner.of_this_process("").name)


def _state(session: Session, name: str, reserved: dict[str, str]) -> PlaceState:
    place = session.place(name)
    offer = session.offer(name)
    board = f"{offer.user}@{offer.host}:{offer.port}" if offer else ""
    exporter, labgrid = (offer.exporter, offer.labgrid) if offer else ("", "")
    problem = ""
    try:
        session.service(name)
    except EdgesegError as error:
        problem = type(error).__name__
    holder = place.acquired or reserved.get(place.reservation or "", "")
    state = "held" if place.acquired else "reserved" if place.reservation else "free"
    since = datetime.fromtimestamp(place.changed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if place.acquired else ""
    tags = " ".join(f"{key}={value}" for key, value in sorted(place.tags.items()))
    return PlaceState(
        name, tags, ", ".join(filter(None, (state, problem))), describe_owner(holder), since, board, exporter, labgrid
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}") from error


def _become(module: str, *words: str) -> NoReturn:
    """labgrid's own command in place of this process, so that signals and the exit code are its own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])
