"""A run: bundles on boards, the boards in parallel, each held by this run alone; all of it is in the station record."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeseg import __version__
from edgeseg.boards.hil.bundle_run import ERROR, PASSED, REFUSED, BundleRun
from edgeseg.boards.hil.bundles import Candidate
from edgeseg.boards.hil.connection import Connection
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.facts import BoardFacts
from edgeseg.boards.hil.fitness import check_board
from edgeseg.boards.hil.junit import write_junit
from edgeseg.boards.hil.station import RECORD, SCHEMA, Done, Record, Station, check_same, read_record, utc
from edgeseg.boards.hil.transport import Holder, Transport, open_transport
from edgeseg.errors import BoardUnfit, BoardUnreachable, EdgesegError

JUNIT = "junit.xml"
Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run deals with boards.

    Attributes:
        wait_s: for another runner to give a board back.
        retries: of a bundle whose connection was lost; a gate that failed is never tried again.
        quarantine: connections lost before a board is left alone for the rest of the run.
        reconnect_s: how long a board that went away is waited for.
    """

    wait_s: float = 0.0
    retries: int = 2
    quarantine: int = 3
    reconnect_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one bundle on one board: "passed", "failed", "refused" or "error", with the reason."""

    board: str
    bundle: str
    status: str
    reason: str
    overhead_s: float | None = None


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
    holder = _holder(earlier.run if earlier else None)
    with Station(path, resume=resume is not None) as station:
        station.write("resumed" if earlier else "run", **_about(holder, entries, candidates))
        runs = [_BoardRun(e, candidates, station, holder, options, earlier, say, opener) for e in entries]
        with ThreadPoolExecutor(len(runs), "board") as pool:
            outcomes = [outcome for found in pool.map(_BoardRun.run, runs) for outcome in found]
        good = all(outcome.status == PASSED for outcome in outcomes)
        station.write("end", status=PASSED if good else "failed")
    write_junit(read_record(path), path.with_name(JUNIT))
    return outcomes


class _BoardRun:
    """All bundles on one board."""

    def __init__(
        self,
        entry: BoardEntry,
        candidates: Sequence[Candidate],
        station: Station,
        holder: Holder,
        options: RunOptions,
        earlier: Record | None,
        say: Say,
        opener: Callable[[BoardEntry, Holder], Transport],
    ) -> None:
        self._entry = entry
        self._candidates = candidates
        self._station = station
        self._options = options
        self._done = earlier.done(entry.name) if earlier else Done()
        self._machine = earlier.machine(entry.name) if earlier else ""
        self._tell = say
        self._connection = Connection(entry, holder, station, wait_s=options.wait_s, opener=opener)
        self._lost = 0

    def run(self) -> list[Outcome]:
        """An outcome for each bundle, whatever happens."""
        outcomes: list[Outcome] = []
        try:
            if all(candidate.digest in self._done.bundles for candidate in self._candidates):
                return [self._known(candidate) for candidate in self._candidates]
            facts = self._begin()
            for candidate in self._candidates:
                outcome, facts = self._bundle(candidate, facts)
                outcomes.append(outcome)
        except EdgesegError as error:
            if isinstance(error, BoardUnreachable):
                self._write("quarantine", lost=self._lost, reason=str(error))
            self._write("board error", error=type(error).__name__, reason=str(error))
            self._say(f"error: {error}")
            left = self._candidates[len(outcomes) :]
            outcomes += [self._outcome(candidate, ERROR, str(error)) for candidate in left]
        finally:
            self._connection.close()
        return outcomes

    def _begin(self) -> BoardFacts:
        while True:
            try:
                self._connection.open()
                facts = self._connection.facts()
                break
            except BoardUnreachable as error:
                self._lose(error, "probe")
                if self._lost > self._options.retries:
                    raise
        if self._machine and self._machine != facts.machine:
            self._write("machine changed", before=self._machine, now=facts.machine)
            self._done = Done()
        self._write("board", facts=msgspec.to_builtins(facts))
        self._say(facts.description)
        check_board(self._entry, facts)
        return facts

    def _bundle(self, candidate: Candidate, facts: BoardFacts) -> tuple[Outcome, BoardFacts]:
        """What came of a bundle, and the board as it was left."""
        if candidate.digest in self._done.bundles:
            return self._known(candidate), facts
        run = BundleRun(self._connection, self._station, candidate, facts, self._done, self._say)
        tries = 0
        while True:
            try:
                status, reason = run.run()
                return self._outcome(candidate, status, reason), run.facts
            except BoardUnfit as error:
                return self._outcome(candidate, REFUSED, str(error)), run.facts
            except BoardUnreachable as error:
                tries += 1
                self._lose(error, candidate.name)
                rebooted = self._connection.open(self._options.reconnect_s)
                if rebooted:
                    self._write("rebooted", bundle=candidate.name)
                    error = BoardUnreachable(f"{self._entry.name} was rebooted in the middle")
                if tries > self._options.retries:
                    return self._outcome(candidate, ERROR, str(error), error=type(error).__name__), run.facts
            except EdgesegError as error:
                return self._outcome(candidate, ERROR, str(error), error=type(error).__name__), run.facts

    def _lose(self, error: BoardUnreachable, during: str) -> None:
        """Put a lost connection on record. Raises it again where there were too many of them."""
        self._lost += 1
        self._write("lost", during=during, lost=self._lost, reason=str(error))
        self._say(str(error))
        if self._lost >= self._options.quarantine:
            raise error

    def _known(self, candidate: Candidate) -> Outcome:
        event = self._done.bundles[candidate.digest]
        self._say(f"{candidate.name}: {event['status']}, by the earlier part of the record")
        return Outcome(self._entry.name, candidate.name, event["status"], event["reason"])

    def _outcome(self, candidate: Candidate, status: str, reason: str, **more: Any) -> Outcome:
        about = {"bundle": candidate.name, "digest": candidate.digest, "artifacts": candidate.hashes()}
        self._write("bundle", **about, status=status, reason=reason, **more)
        self._say(f"{candidate.name}: {status}" + (f": {reason}" if reason else ""))
        return Outcome(self._entry.name, candidate.name, status, reason)

    def _say(self, line: str) -> None:
        self._tell(self._entry.name, line)

    def _write(self, event: str, **fields: Any) -> None:
        self._station.write(event, board=self._entry.name, **fields)


def _holder(run: str | None) -> Holder:
    made = run or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Holder(made, user, socket.gethostname(), os.getpid(), utc())


def _about(holder: Holder, entries: Sequence[BoardEntry], candidates: Sequence[Candidate]) -> dict[str, Any]:
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
