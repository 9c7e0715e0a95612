"""How a runner reaches a board: run a command, bring files, hold the board for itself.

A transport is opened with a lease: the connection and the exclusive use of the board are one, so that whatever ends the
runner gives the board back and ends what runs there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from edgeseg.boards.hil.environment import BoardEntry

# Heartbeats this often; a board that hears none for so long kills what it runs and gives itself back.
BEAT_S = 2.0
SILENCE_S = 15.0
# What to do where another runner has a board; the command and the pytest plugin have an option each.
WAIT = "wait for it (--wait SECONDS; in pytest --edgeseg-wait SECONDS), or take another board"


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that came to its end on a board.

    Attributes:
        rc: its exit code, negative for the signal that killed it.
        stdout, stderr: what it wrote.
        seconds: that it took, by the board's clock.
        files: the text of each file that was asked for; None where there is none.
    """

    rc: int
    stdout: bytes
    stderr: str
    seconds: float
    files: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a board, for the message to others: a run, and who started it where.

    Attributes:
        run: id of the run.
        user, host, pid: of the runner.
        since: UTC.
    """

    run: str
    user: str
    host: str
    pid: int
    since: str

    def as_json(self) -> dict[str, str | int]:
        """For the lease file."""
        return asdict(self)


class Transport(Protocol):
    """A way to one board.

    Attributes:
        name: of the board.
        where: the board is, for people: "root@10.0.0.2:22" or "this machine".
        boot_id: of the board, as it was when the transport was opened; tells a reboot.
    """

    name: str
    where: str
    boot_id: str

    def open(self, holder: Holder) -> None:
        """Connect and take the board.

        Raises BoardBusy where another runner has it, WrongHostKey, BoardUnreachable, or BoardError where it does not
        let this one in. A fleet also raises MissingDependency where labgrid is not installed, BadInput where it has
        no such place.
        """
        ...

    def run(self, command: Sequence[str], timeout_s: float, fetch: Sequence[str] = ()) -> Completed:
        """Run a command on the board, wait for it, and bring the text files it wrote.

        Nothing of it is left when this returns or raises, or the runner is killed, or the connection ends: there within
        SILENCE_S.

        Raises BoardTimeout where it takes longer, BoardUnreachable where the connection is lost, BoardError where it
        cannot be started.
        """
        ...

    def put(self, source: Path, remote: str, timeout_s: float) -> None:
        """Bring a file or a folder to `remote` on the board, whole or not at all, in place of what is there.

        Raises as `run`; BoardError where it cannot be written there.
        """
        ...

    def get(self, remote: str, target: Path, timeout_s: float) -> None:
        """Fetch a file. Raises as `run`; BoardError where it cannot be read there."""
        ...

    def close(self) -> None:
        """Give the board back; calling it twice is allowed."""
        ...


def open_transport(entry: BoardEntry, holder: Holder) -> Transport:
    """The transport of a board, opened. Raises as `Transport.open`."""
    transport = _transport(entry)
    try:
        transport.open(holder)
    except BaseException:
        transport.close()
        raise
    return transport


def _transport(entry: BoardEntry) -> Transport:
    if entry.transport == "local":
        from edgeseg.boards.hil.local_transport import LocalTransport

        return LocalTransport(entry)
    if entry.transport == "labgrid":
        from edgeseg.boards.fleet.transport import FleetTransport

        return FleetTransport(entry)
    from edgeseg.boards.hil.ssh_transport import SshTransport

    return SshTransport(entry)


def script(name: str) -> str:
    """The source of a script of `onboard`."""
    return files("edgeseg.boards.hil.onboard").joinpath(f"{name}.py").read_text(encoding="utf-8")
