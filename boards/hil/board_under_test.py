"""A board in the hands of tests: commands, files, bundles; the first error that it does not survive is its last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edgeseg.boards.hil.bundle_run import FAILED
from edgeseg.boards.hil.bundles import Candidate, read_candidate
from edgeseg.boards.hil.environment import BoardEntry, Limits, Measures
from edgeseg.boards.hil.facts import BoardFacts
from edgeseg.boards.hil.held_board import HeldBoard
from edgeseg.boards.hil.proof import Proof, proof_of
from edgeseg.boards.hil.station import Done
from edgeseg.boards.hil.transport import Completed
from edgeseg.errors import BoardUnreachable, EdgesegError, ProofFailed

_Result = TypeVar("_Result")


@dataclass(slots=True)
class CurrentTest:
    """What the test that is running asks for, and what it found.

    Attributes:
        limits, measures: in place of those of the board; None for those.
        proofs: of bundles, in order.
    """

    limits: Limits | None = None
    measures: Measures | None = None
    proofs: list[Proof] = field(default_factory=list)


class BoardUnderTest:
    """One board, held until all tests that want it are over.

    Attributes:
        name: of the board.
        entry: of the environment.
        given_up: the error that ended its use; None while it can be used.
    """

    def __init__(
        self, held: HeldBoard, candidates: Mapping[Path, Candidate], current: Callable[[], CurrentTest]
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            held: the board.
            candidates: bundles of the session, by path.
            current: the test that is running.
        """
        self.name = held.entry.name
        self.entry: BoardEntry = held.entry
        self.given_up: EdgesegError | None = None
        self._held = held
        self._candidates = dict(candidates)
        self._current = current
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Take the board. Raises EdgesegError where it cannot be had: then it is given up."""
        try:
            self._held.begin()
        except EdgesegError as error:
            self._give_up(error)
            raise

    @property
    def facts(self) -> BoardFacts:
        """The board as it was found last."""
        return self._held.facts

    def run(self, command: Sequence[str], timeout_s: float = 60.0, fetch: Sequence[str] = ()) -> Completed:
        """Run a command on the board, wait for it, and bring the text files it wrote.

        Raises BoardTimeout where it takes longer: it is killed there; BoardError where it cannot be started;
        BoardUnreachable where the connection is lost.
        """
        return self._do(lambda: self._held.connection.run(command, timeout_s, fetch, step="test"))

    def put(self, source: Path | str, remote: str) -> None:
        """Bring a file or a folder, in place of what is there. Raises BoardError where it cannot be written there."""
        self._do(lambda: self._held.connection.put(Path(source), remote, step="test"))

    def get(self, remote: str, target: Path | str) -> None:
        """Fetch a file. Raises BoardError where it cannot be read there, BadInput where it cannot be written here."""
        self._do(lambda: self._held.connection.get(remote, Path(target), step="test"))

    def prove(self, bundle: Path | str, *, check: bool = True) -> Proof:
        """Deploy a bundle, verify it, warm up, bench and soak, by the limits and measures of the test that is running.

        Args:
            bundle: its path.
            check: raise where it failed; without, the proof says so.

        Raises ProofFailed where it failed and that is to be checked, BoardUnfit where the board cannot run it,
        BoardError where the board fails, BundleError where it is no bundle.
        """
        self._check()
        candidate = self._candidate(Path(bundle))
        current, done = self._current(), Done()
        try:
            outcome = self._held.prove(candidate, done, current.limits, current.measures)
        except EdgesegError as error:
            self._give_up(error)
            raise
        self._seen.add(candidate.digest)
        if outcome.problem:
            raise outcome.problem
        proof = proof_of(outcome, {step: fields for (_, step), fields in done.steps.items()})
        current.proofs.append(proof)
        if check and proof.status == FAILED:
            raise ProofFailed(f"{self.name}: {proof.bundle}: {proof.reason}")
        return proof

    def close(self) -> None:
        """Give the board back; calling it twice is allowed."""
        self._held.close()

    def _do(self, work: Callable[[], _Result]) -> _Result:
        self._check()
        try:
            return work()
        except BoardUnreachable as error:
            raise self._recovered(error) from None

    def _recovered(self, error: BoardUnreachable) -> EdgesegError:
        """What the connection was lost by. The tests that follow have the board again, or an error at once."""
        try:
            return self._held.recover(error, "test")
        except EdgesegError as end:
            self._give_up(end)
            return end

    def _check(self) -> None:
        if self.given_up:
            raise self.given_up

    def _give_up(self, error: EdgesegError) -> None:
        self.given_up = error
        left = [candidate for candidate in self._candidates.values() if candidate.digest not in self._seen]
        self._held.give_up(error, left)
        self.close()

    def _candidate(self, path: Path) -> Candidate:
        if path not in self._candidates:
            self._candidates[path] = read_candidate(path)
        return self._candidates[path]
