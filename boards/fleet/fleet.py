"""The runner's end of the process that keeps its places: one for a run and a coordinator, started when it is needed."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgeseg import errors
from edgeseg.boards.fleet.names import Service
from edgeseg.errors import BoardBusy, BoardError, BoardUnreachable, EdgesegError
from edgeseg.plugins import require

_ANSWER_S = 120.0
_ENDED = "the process that keeps this run's places ended, and with it the right to its boards"
_KINDS: Mapping[str, type[EdgesegError]] = {
    kind.__name__: kind
    for kind in (
        *(errors.BadInput, errors.BoardError, errors.BoardUnreachable),
        *(errors.CoordinatorUnreachable, errors.ExporterGone, errors.ExporterMismatch),
    )
}
Lost = Callable[[EdgesegError], None]


class Fleet:
    """Places of one run at one coordinator; used by the threads of all boards."""

    def __init__(self, coordinator: str, run: str) -> None:
        """Prepare; nothing is started yet.

        Args:
            coordinator: HOST:PORT.
            run: id of the run.
        """
        self._about = (coordinator, run)
        self._lock = threading.Lock()
        self._keeper: _Keeper | None = None

    def take(self, board: str, place: str, tags: Mapping[str, str], pinned: list[str], lost: Lost) -> Service:
        """Take a place, or any with the tags.

        Args:
            board: of this run, for which it is.
            place: its name; not looked at where there are tags.
            tags: that it must have.
            pinned: places whose host key is known: no other is taken by tags.
            lost: told, from another thread, when the place is not this run's any more.

        Raises MissingDependency where labgrid is not installed, CoordinatorUnreachable, BadInput where there is no such
        place, BoardBusy where another has it, ExporterGone, ExporterMismatch, BoardError.
        """
        request = {"do": "take", "board": board, "place": place, "tags": dict(tags), "pinned": pinned}
        for _ in range(2):  # one that had nothing to keep may be ending in this very moment
            answer = self._running().ask(request, lost)
            if answer is not None:
                if "error" in answer:
                    raise _error(answer)
                return Service(**answer["service"])
        raise BoardUnreachable(f"{board}: {_ENDED}")

    def give(self, board: str, keep_s: float = 0.0) -> None:
        """Give back what a board has, now or when it was not taken again for so long."""
        with self._lock:
            keeper = self._keeper
        if keeper:
            with suppress(BoardUnreachable):
                keeper.ask({"do": "give", "board": board, "keep_s": keep_s}, None)

    def _running(self) -> _Keeper:
        with self._lock:
            if self._keeper is None or self._keeper.ended:
                require("fleet", 'a board with transport = "labgrid"')
                self._keeper = _Keeper(*self._about)
            return self._keeper


@dataclass(slots=True)
class _Keeper:
    """The process, as long as it lives."""

    coordinator: str
    run: str
    ended: bool = False
    _process: subprocess.Popen[str] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = field(default_factory=dict)
    _boards: dict[str, Lost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeseg.boards.fleet.keeper", self.coordinator, self.run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            start_new_session=True,  # what ends the runner by its terminal must not end this
        )
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, request: Mapping[str, Any], lost: Lost | None) -> dict[str, Any] | None:
        """What the process answers; None where it has ended."""
        answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            if self.ended:
                return None
            number = next(self._ids)
            self._waiting[number] = answers
            if lost:
                self._boards[str(request["board"])] = lost
            else:
                self._boards.pop(str(request["board"]), None)
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps({"id": number, **request}) + "\n")
                self._process.stdin.flush()
            except OSError:
                return None
        try:
            return answers.get(timeout=_ANSWER_S)
        except queue.Empty:
            raise BoardUnreachable(f"labgrid at {self.coordinator} gave no answer in {_ANSWER_S:g} s") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._lock:
                if "id" in message:
                    self._waiting.pop(message["id"]).put(message)
                    continue
                lost = self._boards.pop(message["board"], None)
            if lost:
                lost(_error(message))
        self._end()

    def _end(self) -> None:
        with self._lock:
            self.ended = True
            waiting, self._waiting = self._waiting, {}
            boards, self._boards = self._boards, {}
        for answers in waiting.values():
            answers.put(None)
        for board, lost in boards.items():
            lost(BoardUnreachable(f"{board}: {_ENDED}"))
        self._process.wait()


_fleets: dict[tuple[str, str], Fleet] = {}
_fleets_lock = threading.Lock()


def fleet_of(coordinator: str, run: str) -> Fleet:
    """The one of a run and a coordinator."""
    with _fleets_lock:
        return _fleets.setdefault((coordinator, run), Fleet(coordinator, run))


def _error(message: Mapping[str, Any]) -> EdgesegError:
    if message["error"] == BoardBusy.__name__:
        return BoardBusy(message["message"], message["run"])
    return _KINDS.get(message["error"], BoardError)(message["message"])
