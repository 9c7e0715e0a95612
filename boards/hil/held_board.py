"""A board that a run holds: taken, lost and found again, given up; what is done on it is on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgeseg.boards.hil.bundle_run import ERROR, REFUSED, BundleRun
from edgeseg.boards.hil.bundles import Candidate
from edgeseg.boards.hil.connection import Connection
from edgeseg.boards.hil.environment import BoardEntry, Limits, Measures
from edgeseg.boards.hil.facts import BoardFacts
from edgeseg.boards.hil.fitness import check_board
from edgeseg.boards.hil.station import Done, Station
from edgeseg.boards.hil.transport import Holder, Transport, open_transport
from edgeseg.errors import BoardError, BoardUnfit, BoardUnreachable, EdgesegError

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
    """What came of one bundle on one board: "passed", "failed", "refused" or "error", with the reason.

    Attributes:
        problem: the error itself, where that is what it came to.
    """

    board: str
    bundle: str
    status: str
    reason: str
    problem: EdgesegError | None = field(default=None, compare=False, repr=False)


class HeldBoard:
    """One board, in the hands of one run.

    Attributes:
        entry: of the environment.
        connection: to the board.
    """

    def __init__(
        self,
        entry: BoardEntry,
        holder: Holder,
        station: Station,
        options: RunOptions,
        *,
        say: Say = lambda board, line: None,
        opener: Callable[[BoardEntry, Holder], Transport] = open_transport,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            entry: the board, complete.
            holder: who asks for it.
            station: where all of it goes on record.
            options: about boards that are busy or go away.
            say: told the board and a line for people.
            opener: makes the transport.
        """
        self.entry = entry
        self.connection = Connection(entry, holder, station, wait_s=options.wait_s, opener=opener)
        self._station = station
        self._options = options
        self._tell = say
        self._lost = 0
        self._facts: BoardFacts | None = None

    @property
    def facts(self) -> BoardFacts:
        """The board as it was found last. Raises BoardError before `begin`."""
        if self._facts is None:
            raise BoardError(f"{self.entry.name} was not taken yet")
        return self._facts

    def begin(self, machine: str = "") -> bool:
        """Take the board and look at it; a connection that is lost is tried again.

        Args:
            machine: that an earlier part of the record found, "" for none.

        Returns:
            Whether another machine answers now, which is on record then.

        Raises EdgesegError where the board cannot be had or nothing can be measured on it.
        """
        while True:
            try:
                self.connection.open()
                facts = self.connection.facts()
                break
            except BoardUnreachable as error:
                self._lose(error, "probe")
                if self._lost > self._options.retries:
                    raise
        changed = machine not in ("", facts.machine)
        if changed:
            self._write("machine changed", before=machine, now=facts.machine)
        self._write("board", facts=msgspec.to_builtins(facts))
        self.say(facts.description)
        check_board(self.entry, facts)
        self._facts = facts
        return changed

    def prove(
        self, candidate: Candidate, done: Done, limits: Limits | None = None, measures: Measures | None = None
    ) -> Outcome:
        """Do all of the steps with a bundle, again where the connection is lost.

        Args:
            candidate: the bundle.
            done: what need not be done; results of the steps are added.
            limits, measures: in place of those of the board.

        Raises BoardUnreachable where the board was lost too often, or does not come back; whatever else goes wrong is
        an outcome.
        """
        run = BundleRun(
            self.connection, self._station, candidate, self.facts, done, self.say, limits=limits, measures=measures
        )
        tries = 0
        while True:
            try:
                status, reason = run.run()
                return self._outcome(candidate, status, reason)
            except BoardUnfit as error:
                return self._outcome(candidate, REFUSED, str(error), error)
            except BoardUnreachable as error:
                tries += 1
                problem = self.recover(error, candidate.name)
                if tries > self._options.retries:
                    return self._outcome(candidate, ERROR, str(problem), problem)
            except EdgesegError as error:
                return self._outcome(candidate, ERROR, str(error), error)
            finally:
                self._facts = run.facts

    def recover(self, error: BoardUnreachable, during: str) -> BoardUnreachable:
        """Connect again after a lost connection; what it was lost by.

        Raises BoardUnreachable where it was lost too often, or does not come back.
        """
        self._lose(error, during)
        if not self.connection.open(self._options.reconnect_s):
            return error
        self._write("rebooted", bundle=during)
        return BoardUnreachable(f"{self.entry.name} was rebooted in the middle")

    def give_up(self, error: EdgesegError, left: Sequence[Candidate]) -> list[Outcome]:
        """Leave the board alone: why, and the outcomes of what is left to do on it."""
        if isinstance(error, BoardUnreachable):
            self._write("quarantine", lost=self._lost, reason=str(error))
        self._write("board error", error=type(error).__name__, reason=str(error))
        self.say(f"error: {error}")
        return [self._outcome(candidate, ERROR, str(error), error) for candidate in left]

    def close(self) -> None:
        """Give the board back."""
        self.connection.close()

    def say(self, line: str) -> None:
        """Tell people."""
        self._tell(self.entry.name, line)

    def _lose(self, error: BoardUnreachable, during: str) -> None:
        """Put a lost connection on record. Raises it again where there were too many of them."""
        self._lost += 1
        self._write("lost", during=during, lost=self._lost, reason=str(error))
        self.say(str(error))
        if self._lost >= self._options.quarantine:
            raise error

    def _outcome(self, candidate: Candidate, status: str, reason: str, problem: EdgesegError | None = None) -> Outcome:
        about = {"bundle": candidate.name, "digest": candidate.digest, "artifacts": candidate.hashes()}
        more = {"error": type(problem).__name__} if problem and status == ERROR else {}
        self._write("bundle", **about, status=status, reason=reason, **more)
        self.say(f"{candidate.name}: {status}" + (f": {reason}" if reason else ""))
        return Outcome(self.entry.name, candidate.name, status, reason, problem)

    def _write(self, event: str, **fields: Any) -> None:
        self._station.write(event, board=self.entry.name, **fields)
