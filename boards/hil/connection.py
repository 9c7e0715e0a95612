"""A board in the hands of a run: opened, opened again after it was lost, and every command on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.facts import BoardFacts, decode_facts
from edgeseg.boards.hil.station import Station
from edgeseg.boards.hil.transport import SILENCE_S, Completed, Holder, Transport, open_transport
from edgeseg.errors import BoardBusy, BoardError, BoardUnreachable

_AGAIN_S = 1.0
_SHORT_S = 60.0
_SLOWEST = 50_000  # bytes a second that a connection of the field still has
_TAIL = 2000


class Connection:
    """One board, held by one run.

    Attributes:
        entry: of the environment.
        board_seconds: that commands took on the board, by its clock, since the connection was made.
    """

    def __init__(
        self,
        entry: BoardEntry,
        holder: Holder,
        station: Station,
        *,
        wait_s: float = 0.0,
        opener: Callable[[BoardEntry, Holder], Transport] = open_transport,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            entry: the board.
            holder: who asks for it.
            station: where commands go on record.
            wait_s: for another runner to give it back.
            opener: makes the transport.
        """
        self.entry = entry
        self._holder = holder
        self._station = station
        self._wait_s = wait_s
        self._opener = opener
        self._transport: Transport | None = None
        self._boot_id = ""

    def open(self, patience_s: float = 0.0) -> bool:
        """Connect, and wait for the board where another runner has it; True where it was rebooted since the last time.

        Args:
            patience_s: how long an unreachable board is tried again.

        Raises as `Transport.open`.
        """
        self.close()
        free_by, there_by = time.monotonic() + self._wait_s, time.monotonic() + patience_s
        gone_by = time.monotonic() + 2 * SILENCE_S
        while self._transport is None:
            try:
                self._transport = self._opener(self.entry, self._holder)
            except BoardBusy as error:
                # A connection of ours that was lost holds the board until it has heard nothing for long enough.
                ours = error.run == self._holder.run
                if time.monotonic() >= (max(free_by, gone_by) if ours else free_by):
                    raise
                time.sleep(_AGAIN_S)
            except BoardUnreachable:
                if time.monotonic() >= there_by:
                    raise
                time.sleep(_AGAIN_S)
        before, self._boot_id = self._boot_id, self._transport.boot_id
        self._station.write("connected", board=self.entry.name, where=self._transport.where, boot_id=self._boot_id)
        return bool(before) and before != self._boot_id

    def close(self) -> None:
        """Give the board back."""
        if self._transport:
            self._transport.close()
            self._transport = None

    def run(
        self, command: Sequence[str], timeout_s: float, fetch: Sequence[str] = (), *, bundle: str = "", step: str = ""
    ) -> Completed:
        """Run a command and put it on record; raises as `Transport.run`."""
        start = time.monotonic()
        about = {"board": self.entry.name, "bundle": bundle, "step": step, "command": list(command)}
        try:
            done = self._open.run(command, timeout_s, fetch)
        except BoardError as error:
            self._station.write("command", **about, rc=None, seconds=_since(start), error=str(error))
            raise
        self._station.write(
            "command",
            **about,
            rc=done.rc,
            seconds=_since(start),
            board_seconds=round(done.seconds, 6),
            stdout=done.stdout.decode(errors="replace")[-_TAIL:],
            stderr=done.stderr[-_TAIL:],
        )
        return done

    def edgeseg(
        self, words: Sequence[str], timeout_s: float, fetch: Sequence[str] = (), *, bundle: str = "", step: str = ""
    ) -> Completed:
        """Run edgeseg on the board.

        Raises as `run`; BoardError where edgeseg is killed, is not there or does not know the command.
        """
        done = self.run([*self.entry.command, *words], timeout_s, fetch, bundle=bundle, step=step)
        what = f"{self.entry.name}: `edgeseg {words[0]}`"
        if done.rc == -9:
            raise BoardError(f"{what} was killed by the system, most likely for want of memory")
        if done.rc < 0:
            raise BoardError(f"{what} was ended by signal {-done.rc}")
        if done.rc not in (0, 1):
            raise BoardError(f"{what} ended with exit code {done.rc}: {error_line(done)}")
        return done

    def put(self, source: Path, remote: str, *, bundle: str = "", step: str = "") -> None:
        """Bring a file or a folder, and put that on record; raises as `Transport.put`."""
        timeout_s = _SHORT_S + _size(source) / _SLOWEST
        self._copy(("put", source.name, remote), lambda: self._open.put(source, remote, timeout_s), bundle, step)

    def get(self, remote: str, target: Path, *, bundle: str = "", step: str = "") -> None:
        """Fetch a file, and put that on record; raises as `Transport.get`."""
        self._copy(("get", remote, target.name), lambda: self._open.get(remote, target, _SHORT_S), bundle, step)

    def facts(self, *, bundle: str = "", step: str = "probe") -> BoardFacts:
        """What the board says of itself, when it has removed what runs left in the harness's folder.

        Raises as `edgeseg`; BoardError where edgeseg there is too old for this.
        """
        words = ("hil", "probe", "--work", self.entry.work, "--clear")
        done = self.edgeseg(words, _SHORT_S, bundle=bundle, step=step)
        if done.rc:
            raise BoardError(f"{self.entry.name}: {error_line(done)}")
        return decode_facts(done.stdout)

    def _copy(self, words: Sequence[str], copy: Callable[[], None], bundle: str, step: str) -> None:
        start = time.monotonic()
        about = {"board": self.entry.name, "bundle": bundle, "step": step, "command": list(words)}
        try:
            copy()
        except BoardError as error:
            self._station.write("command", **about, rc=None, seconds=_since(start), error=str(error))
            raise
        self._station.write("command", **about, rc=0, seconds=_since(start))

    @property
    def _open(self) -> Transport:
        if self._transport is None:
            raise BoardUnreachable(f"{self.entry.name}: not connected")
        return self._transport


def error_line(done: Completed) -> str:
    """What a command of edgeseg said of its failure."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")] or lines
    return said[-1].removeprefix("error: ") if said else f"exit code {done.rc}, and it said nothing"


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]))


def _since(start: float) -> float:
    return round(time.monotonic() - start, 6)
