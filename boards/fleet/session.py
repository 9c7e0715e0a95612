"""A connection to labgrid's coordinator. The only module that imports labgrid: itself imported where that is meant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from labgrid.remote.client import ClientSession, Error
from labgrid.remote.common import Place, Reservation, ReservationState
from labgrid.remote.generated import labgrid_coordinator_pb2 as words
from labgrid.util import labgrid_version

from edgeseg.boards.fleet.names import EXPORTER_CLASS, SERVICE, Service
from edgeseg.boards.fleet.owner import describe_owner, parse_owner
from edgeseg.boards.hil.transport import WAIT
from edgeseg.errors import (
    BadInput,
    BoardBusy,
    BoardError,
    CoordinatorUnreachable,
    ExporterGone,
    ExporterMismatch,
)

_CONNECT_S = 10.0
# A coordinator itself waits 10 s for each exporter that does not answer.
_CALL_S = 45.0
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
T = TypeVar("T")


class _Client(ClientSession):  # type: ignore[misc]
    """labgrid's own client under a name of ours, which tells when anything changes."""

    def __init__(self, address: str, owner: str, changed: Callable[[], None]) -> None:
        super().__init__(address, asyncio.get_running_loop())
        self._host, _, self._user = owner.partition("/")
        self._changed = changed

    def gethostname(self) -> str:
        return self._host

    def getuser(self) -> str:
        return self._user

    async def on_resource_changed(self, *args: Any) -> None:
        await super().on_resource_changed(*args)
        self._changed()

    async def on_place_changed(self, place: Any) -> None:
        await super().on_place_changed(place)
        self._changed()

    async def message_pump(self) -> None:
        await super().message_pump()
        self._changed()


class Session:
    """What a fleet has, and a way to get it. Any method that asks the coordinator raises CoordinatorUnreachable."""

    def __init__(self, address: str, owner: str, changed: Callable[[], None] = lambda: None) -> None:
        """Prepare; nothing is connected yet.

        Args:
            address: of the coordinator, HOST:PORT.
            owner: the name under which places are held.
            changed: called after anything in the fleet has changed, and when the coordinator went away.
        """
        self.owner = owner
        self._address = address
        self._client = _Client(address, owner, changed)

    async def open(self) -> None:
        """Connect, and learn what the fleet has."""
        try:
            await asyncio.wait_for(self._client.start(), _CONNECT_S)
        except (Error, TimeoutError) as error:
            await self._client.close()
            raise self.unreachable() from error

    async def close(self) -> None:
        """Disconnect; places stay as they are."""
        if not self._client.stopping.is_set():
            await self._client.stop()
        await self._client.close()

    @property
    def lost(self) -> bool:
        """Whether the coordinator went away."""
        return bool(self._client.stopping.is_set())

    @property
    def places(self) -> Mapping[str, Place]:
        """All places by name, as labgrid has them."""
        found: dict[str, Place] = self._client.places
        return found

    def place(self, name: str) -> Place:
        """One of them. Raises BadInput where there is none of that name."""
        if name not in self.places:
            known = ", ".join(sorted(self.places)) or "none"
            raise BadInput(f"the fleet of {self._address} has no place {name!r}, expected one of: {known}")
        return self.places[name]

    def service(self, name: str) -> Service:
        """The board at a place, which can be used from here.

        Raises ExporterGone where nobody offers one, ExporterMismatch where its exporter has another labgrid, BoardError
        where it cannot be reached from here, BadInput where there is no such place.
        """
        found = self.offer(name)
        if found is None:
            wanted = ", ".join(sorted({match.exporter for match in self.place(name).matches})) or "none"
            raise ExporterGone(
                f"place {name}: nobody offers its board, its exporter ({wanted}) is not connected to the coordinator "
                f"{self._address}: start it again (`edgeseg hil fleet export`)"
            )
        ours = labgrid_version()
        if found.labgrid and found.labgrid.split(".")[0] != ours.split(".")[0]:
            raise ExporterMismatch(
                f"place {name}: its exporter {found.exporter} has labgrid {found.labgrid}, this runner {ours}: "
                "install the same major version on both"
            )
        if found.isolated:
            raise BoardError(f"place {name}: its exporter {found.exporter} is --isolated, and edgeseg uses no proxy")
        return found

    def offer(self, name: str) -> Service | None:
        """The board at a place as its exporter offers it, None where nobody does; raises BadInput as `place`."""
        place = self.place(name)
        for exporter, groups in self._client.resources.items():
            for group, resources in groups.items():
                for key, resource in resources.items():
                    cls = resource.data.get("cls")
                    if cls == SERVICE and resource.avail and place.hasmatch((exporter, group, cls, key)):
                        return self._service(name, exporter, resource)
        return None

    def _service(self, place: str, exporter: str, resource: Any) -> Service:
        found = resource.args
        isolated = bool(resource.extra.get("proxy_required"))
        host, port, user = found["address"], found.get("port") or 22, found["username"]
        return Service(place, host, port, user, exporter, self._version(exporter), isolated)

    def _version(self, exporter: str) -> str:
        for resources in self._client.resources.get(exporter, {}).values():
            for resource in resources.values():
                if resource.data.get("cls") == EXPORTER_CLASS:
                    return str(resource.args.get("labgrid", ""))
        return ""

    async def acquire(self, name: str) -> None:
        """Take a place; it is this owner's already after a connection that was lost.

        Raises BadInput where there is none of that name, BoardBusy where another has it, BoardError where labgrid
        cannot give it.
        """
        for _ in range(2):  # who came before is known when the first try failed
            holder = self.place(name).acquired
            if holder == self.owner:
                return
            if holder:
                raise self._busy(name, holder)
            if await self._try_to_acquire(name):
                return
        raise BoardBusy(f"place {name} is being taken by another client of labgrid: {WAIT}")

    async def _try_to_acquire(self, name: str) -> bool:
        try:
            await self._call(self._client.stub.AcquirePlace(words.AcquirePlaceRequest(placename=name), timeout=_CALL_S))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.PERMISSION_DENIED:
                raise await self._reserved(name) from error
            await self.sync()
            if self.place(name).acquired:
                return False
            raise BoardError(f"place {name}: labgrid does not give it: {error.details()}") from error
        await self.sync()
        return True

    async def release(self, name: str, holder: str) -> None:
        """Give a place back, if that one still holds it."""
        request = words.ReleasePlaceRequest(placename=name, fromuser=holder)
        try:
            await self._call(self._client.stub.ReleasePlace(request, timeout=_CALL_S))
        except grpc.aio.AioRpcError as error:
            raise BoardError(f"place {name} cannot be given back: {error.details()}") from error
        await self.sync()

    async def reclaim(self) -> list[str]:
        """Give back the places of runs of this machine that are dead; their names."""
        found = []
        for name, place in list(self.places.items()):
            owner = parse_owner(place.acquired or "")
            if owner and owner.dead:
                await self.release(name, owner.name)
                found.append(name)
        return found

    async def reserve(self, tags: Mapping[str, str]) -> tuple[str, str]:
        """Ask for any place with these tags: a token, and the place or "" while there is none."""
        request = words.CreateReservationRequest(prio=0.0)
        request.filters["main"].filter.update(tags)
        answer = await self._call(self._client.stub.CreateReservation(request, timeout=_CALL_S))
        return _allocated(answer)

    async def poll(self, token: str) -> str:
        """The place that a reservation has, "" while there is none; raises KeyError where the reservation is over.

        One that nobody polls for 60 s is over, unless its place is held.
        """
        try:
            request = words.PollReservationRequest(token=token)
            answer = await self._call(self._client.stub.PollReservation(request, timeout=_CALL_S))
        except grpc.aio.AioRpcError as error:
            raise KeyError(token) from error
        if ReservationState(answer.reservation.state) in (ReservationState.expired, ReservationState.invalid):
            raise KeyError(token)
        return _allocated(answer)[1]

    async def cancel(self, token: str) -> None:
        """End a reservation; one that is over already is no error."""
        try:
            await self._call(
                self._client.stub.CancelReservation(words.CancelReservationRequest(token=token), timeout=_CALL_S)
            )
        except grpc.aio.AioRpcError:
            return

    async def reservations(self) -> list[Reservation]:
        """All of them."""
        answer = await self._call(self._client.stub.GetReservations(words.GetReservationsRequest(), timeout=_CALL_S))
        return [Reservation.from_pb2(reservation) for reservation in answer.reservations]

    async def ask(self, method: str, request: Any) -> None:
        """Any other request. Raises BoardError where the coordinator refuses it."""
        try:
            await self._call(getattr(self._client.stub, method)(request, timeout=_CALL_S))
        except grpc.aio.AioRpcError as error:
            raise BoardError(f"the coordinator {self._address} refused {method}: {error.details()}") from error

    async def sync(self) -> None:
        """Wait until all that happened before is known here."""
        try:
            known = await asyncio.wait_for(self._client.sync_with_coordinator(), _CALL_S)
        except TimeoutError as error:
            raise self.unreachable() from error
        if not known:
            raise self.unreachable()

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() in _LOST:
                raise self.unreachable() from error
            raise

    def unreachable(self) -> CoordinatorUnreachable:
        """The error for a coordinator that does not answer."""
        return CoordinatorUnreachable(
            f"labgrid's coordinator at {self._address} does not answer: start it (`edgeseg hil fleet coordinator`), "
            "or bring its port here (ssh -L)"
        )

    def _busy(self, name: str, holder: str) -> BoardBusy:
        since = datetime.fromtimestamp(self.place(name).changed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        owner = parse_owner(holder)
        return BoardBusy(
            f"place {name} is held by {describe_owner(holder)} since {since}: {WAIT}",
            owner.run if owner else "",
        )

    async def _reserved(self, name: str) -> BoardBusy:
        token = self.place(name).reservation
        holder = next((r.owner for r in await self.reservations() if r.token == token), "another client of labgrid")
        owner = parse_owner(holder)
        return BoardBusy(
            f"place {name} is reserved for {describe_owner(holder)}: {WAIT}",
            owner.run if owner else "",
        )


@asynccontextmanager
async def connected(address: str, owner: str) -> AsyncIterator[Session]:
    """A session for a moment. Raises CoordinatorUnreachable."""
    logging.disable(logging.CRITICAL)  # what labgrid logs is raised here
    try:
        session = Session(address, owner)
        await session.open()
        try:
            yield session
        finally:
            await session.close()
    finally:
        logging.disable(logging.NOTSET)


def _allocated(answer: Any) -> tuple[str, str]:
    reservation = Reservation.from_pb2(answer.reservation)
    places: list[str] = reservation.allocations.get("main", [""])
    return reservation.token, places[0]
