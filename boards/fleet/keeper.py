"""Keeps the places of a run, in a process of its own that outlives the run for as long as giving them back takes.

labgrid's coordinator lets a client keep its places when it dies. This process is told what to take and give, as JSON
Lines on standard input; when that ends, whatever ended the runner, all is given back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.boards.fleet.choice import check_tags, none_free, problem_of
from edgeseg.boards.fleet.names import Service
from edgeseg.boards.fleet.owner import Owner
from edgeseg.boards.fleet.session import Session
from edgeseg.errors import BoardBusy, BoardError, EdgesegError

# A runner that waits for a board asks every second; one that does not ask any more has given up.
_ASKED_S = 5.0
_IDLE_S = 5.0
_CLOSE_S = 40.0


@dataclass(slots=True)
class _Held:
    """What one board of the run has or waits for."""

    place: str = ""
    wanted: str = ""
    token: str = ""
    watched: bool = False
    timer: asyncio.TimerHandle | None = None

    def stay(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None


class Keeper:
    """The places of one run at one coordinator."""

    def __init__(self, address: str, owner: str, tell: Callable[[dict[str, Any]], None]) -> None:
        """Prepare; nothing is connected yet.

        Args:
            address: of the coordinator.
            owner: the name under which places are held.
            tell: is told of boards that the run has lost.
        """
        self._address = address
        self._owner = owner
        self._tell = tell
        self._held: dict[str, _Held] = {}
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is held, waited for or under way."""
        return not self._held and not self._tasks

    async def take(self, board: str, place: str, tags: Mapping[str, str], pinned: list[str]) -> Service:
        """Take the place of a board, or any with the tags; the one that it has already where it was only left.

        Raises as `Session.acquire` and `Session.service`; BoardBusy where no place with the tags is free.
        """
        async with self._turns[board]:
            held = self._held.setdefault(board, _Held())
            held.stay()
            try:
                return await self._take(board, held, place, tags, pinned)
            except BaseException:
                held.wanted = held.place
                self._leave(board, held, _ASKED_S)
                raise

    async def _take(self, board: str, held: _Held, place: str, tags: Mapping[str, str], pinned: list[str]) -> Service:
        session = await self._connected()
        await session.reclaim()
        wanted = held.place or (await self._reserved(session, held, tags, pinned) if tags else place)
        self._check_apart(board, wanted)
        held.wanted = wanted
        session.service(wanted)
        await session.acquire(wanted)
        held.place = wanted
        service = session.service(wanted)
        held.watched = True
        return service

    async def give(self, board: str, keep_s: float) -> None:
        """Give back what a board has, now or when nobody took it again for so long."""
        async with self._turns[board]:
            held = self._held.get(board)
            if held is None:
                return
            held.watched = False
            if keep_s:
                self._leave(board, held, keep_s)
            else:
                await self._drop(board)

    async def close(self) -> None:
        """Give everything back and disconnect."""
        for board in list(self._held):
            await self._drop(board)
        if self._session:
            await self._session.close()

    async def _connected(self) -> Session:
        async with self._connecting:
            if self._session and self._session.lost:
                await self._session.close()
                self._session = None
            if self._session is None:
                session = Session(self._address, self._owner, self._look)
                await session.open()
                self._session = session
            else:
                await self._session.sync()  # what happened in the meantime counts
            return self._session

    async def _reserved(self, session: Session, held: _Held, tags: Mapping[str, str], pinned: list[str]) -> str:
        """A place with the tags that can be used. Places that cannot are kept reserved until one is found."""
        check_tags(session, tags)
        useless: dict[str, str] = {}
        try:
            while place := await self._next(session, held, tags):
                problem = problem_of(session, place, pinned)
                if problem is None:
                    return place
                useless[held.token] = str(problem)
                held.token = ""
            raise none_free(session, tags, useless)
        finally:
            for token in useless:
                await session.cancel(token)

    async def _next(self, session: Session, held: _Held, tags: Mapping[str, str]) -> str:
        if held.token:
            try:
                return await session.poll(held.token)
            except KeyError:
                held.token = ""
        held.token, place = await session.reserve(tags)
        return place

    def _check_apart(self, board: str, place: str) -> None:
        other = next((name for name, held in self._held.items() if held.wanted == place and name != board), None)
        if other:
            raise BoardBusy(f"place {place} is the board {other} of this run already: give {board} another place")

    def _leave(self, board: str, held: _Held, seconds: float) -> None:
        held.stay()
        held.timer = asyncio.get_running_loop().call_later(seconds, lambda: self._start(board, held))

    def _start(self, board: str, held: _Held) -> None:
        task = asyncio.create_task(self._drop_left(board, held, held.timer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drop_left(self, board: str, held: _Held, timer: asyncio.TimerHandle | None) -> None:
        async with self._turns[board]:
            if held.timer is timer:  # else it was taken again
                await self._drop(board)

    async def _drop(self, board: str) -> None:
        held = self._held.pop(board, None)
        if held is None:
            return
        held.stay()
        with suppress(EdgesegError):
            session = await self._connected()
            # In this order: labgrid looks for the next one when a place is released, not when a reservation ends.
            if held.token:
                await session.cancel(held.token)
            if held.place:
                await session.release(held.place, self._owner)

    def _look(self) -> None:
        """Tell of places that were lost."""
        for board, held in self._held.items():
            if held.watched and self._session and (lost := self._lost(self._session, held.place)):
                held.watched = False
                self._tell({"event": "lost", "board": board, **_as_json(lost)})

    def _lost(self, session: Session, place: str) -> EdgesegError | None:
        if session.lost:
            return session.unreachable()
        try:
            session.service(place)
        except EdgesegError as error:
            return error
        if session.place(place).acquired != self._owner:
            return BoardBusy(f"place {place} was taken away from this run: somebody released it by force")
        return None


def _as_json(error: EdgesegError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error), "run": getattr(error, "run", "")}


def _write(message: dict[str, Any]) -> None:
    with suppress(OSError):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


async def _answer(keeper: Keeper, request: dict[str, Any]) -> None:
    answer: dict[str, Any] = {"id": request.pop("id")}
    try:
        if request.pop("do") == "take":
            answer["service"] = asdict(await keeper.take(**request))
        else:
            await keeper.give(**request)
    except EdgesegError as error:
        answer |= _as_json(error)
    except Exception as error:
        answer |= _as_json(BoardError(f"labgrid failed: {type(error).__name__}: {error}"))
    _write(answer)


async def _serve(address: str, run: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    keeper = Keeper(address, Owner.of_this_process(run).name, _write)
    tasks: set[asyncio.Task[None]] = set()
    line = asyncio.ensure_future(reader.readline())
    while True:
        done, _ = await asyncio.wait({line}, timeout=_IDLE_S)
        if not done and keeper.idle and not tasks:
            break
        if done:
            if not line.result():
                break
            task = asyncio.create_task(_answer(keeper, json.loads(line.result())))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            line = asyncio.ensure_future(reader.readline())
    line.cancel()
    with suppress(TimeoutError):
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)
        await asyncio.wait_for(keeper.close(), _CLOSE_S)


def main() -> None:
    """Serve the runner at the other end of standard input: the coordinator's address and the run are the arguments."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the runner is the end of this
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    main()
