"""A run: bundles on boards, the boards in parallel, each held by this run alone; all of it is in the station record."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from edgeseg import __version__
from edgeseg.boards.hil.bundle_run import PASSED
from edgeseg.boards.hil.bundles import Candidate
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.held_board import HeldBoard, Outcome, RunOptions, Say
from edgeseg.boards.hil.junit import write_junit
from edgeseg.boards.hil.station import RECORD, SCHEMA, Done, Record, Station, check_same, read_record, utc
from edgeseg.boards.hil.transport import Holder, Transport, open_transport
from edgeseg.errors import EdgesegError

__all__ = ["JUNIT", "Outcome", "RunOptions", "about", "new_holder", "run_suite"]
JUNIT = "junit.xml"


def run_suite(
    entries: Sequence[BoardEntry],
    candidates: Sequence[Candidate],
    folder: Path,
    *,
    options: RunOptions | None = None,
    resume: Path | None = None,
    say: Say = lambda board, line: None,
    opener: Callable[[BoardEntry, Holder], Transport] = open_transport,
) -> list[Outcome]:
    """Prove bundles on boards; the record is written to the folder, then as JUnit XML too.

    Args:
        entries: the boards, complete.
        candidates: the bundles, in order.
        folder: where the record goes.
        options: about boards that are busy or go away.
        resume: a record to go on with, in place of a new one.
        say: told the board and a line for people, from any thread.
        opener: makes transports: for a fleet that has its own.

    Raises BadInput where the record cannot be written, or is of another run. What goes wrong with a board is an
    outcome, not an error.
    """
    options = options or RunOptions()
    path = resume or folder / RECORD
    digests = {candidate.name: candidate.digest for candidate in candidates}
    earlier = None
    if resume:
        earlier = read_record(resume)
        check_same(earlier, resume, digests, [entry.name for entry in entries])
    holder = new_holder(earlier.run if earlier else None)
    with Station(path, resume=resume is not None) as station:
        station.write("resumed" if earlier else "run", **about(holder, entries, candidates))
        boards = [HeldBoard(e, holder, station, options, say=say, opener=opener) for e in entries]
        runs = [_BoardRun(board, candidates, earlier) for board in boards]
        outcomes = [outcome for found in _side_by_side([run.run for run in runs]) for outcome in found]
        good = all(outcome.status == PASSED for outcome in outcomes)
        station.write("end", status=PASSED if good else "failed")
    write_junit(read_record(path), path.with_name(JUNIT))
    return outcomes


def _side_by_side(works: Sequence[Callable[[], list[Outcome]]]) -> list[list[Outcome]]:
    """What each comes to. Threads of a pool would be waited for on Ctrl-C; with these, boards are left at once."""
    futures: list[Future[list[Outcome]]] = [Future() for _ in works]

    def work(index: int) -> None:
        try:
            futures[index].set_result(works[index]())
        except BaseException as error:
            futures[index].set_exception(error)

    for index in range(len(works)):
        Thread(target=work, args=(index,), name=f"board-{index}", daemon=True).start()
    return [future.result() for future in futures]


class _BoardRun:
    """All bundles on one board."""

    def __init__(self, board: HeldBoard, candidates: Sequence[Candidate], earlier: Record | None) -> None:
        self._board = board
        self._candidates = candidates
        self._done = earlier.done(board.entry.name) if earlier else Done()
        self._machine = earlier.machine(board.entry.name) if earlier else ""

    def run(self) -> list[Outcome]:
        """An outcome for each bundle, whatever happens."""
        outcomes: list[Outcome] = []
        if all(candidate.digest in self._done.bundles for candidate in self._candidates):
            return [self._known(candidate) for candidate in self._candidates]
        try:
            if self._board.begin(self._machine):
                self._done = Done()
            for candidate in self._candidates:
                known = candidate.digest in self._done.bundles
                outcomes.append(self._known(candidate) if known else self._board.prove(candidate, self._done))
        except EdgesegError as error:
            outcomes += self._board.give_up(error, self._candidates[len(outcomes) :])
        finally:
            self._board.close()
        return outcomes

    def _known(self, candidate: Candidate) -> Outcome:
        event = self._done.bundles[candidate.digest]
        self._board.say(f"{candidate.name}: {event['status']}, by the earlier part of the record")
        return Outcome(self._board.entry.name, candidate.name, event["status"], event["reason"])


def new_holder(run: str | None = None) -> Holder:
    """This process as the holder of boards, for a new run or for one that goes on."""
    made = run or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Holder(made, user, socket.gethostname(), os.getpid(), utc())


def about(holder: Holder, entries: Sequence[BoardEntry], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What the first event of a record says of a run."""
    return {
        "schema": SCHEMA,
        "run": holder.run,
        "runner": holder.as_json(),
        "edgeseg": __version__,
        "boards": [entry.name for entry in entries],
        "environment": [_shown(entry) for entry in entries],
        "bundles": [
            {"name": c.name, "path": str(c.path), "digest": c.digest, "files": c.hashes(), "key_ids": list(c.key_ids)}
            for c in candidates
        ],
    }


def _shown(entry: BoardEntry) -> dict[str, Any]:
    """An entry without the path of its key."""
    shown: dict[str, Any] = msgspec.to_builtins(entry)
    del shown["key"]
    return shown
