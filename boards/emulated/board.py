"""Emulated boards: what they are, and where the next command finds them, whatever killed the last one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from edgeseg.boards.emulated.limits import Groups, groups
from edgeseg.boards.emulated.network import address, plug, run
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.errors import BadInput, BoardError

FOLDER = "EDGESEG_EMULATED"
_DEFAULT = "/var/tmp/edgeseg-boards"
_SHOWN = 120


class EmulatedBoard(msgspec.Struct, frozen=True, kw_only=True):
    """A board as it was asked for.

    Attributes:
        name: also its host name.
        number: of its network and its control groups; no other emulated board of this machine has it.
        cpus: it may use on average; None for all.
        memory_bytes: it may use; None for all.
        disk_bytes: of the file system at /data; None for what the host has.
        without: engines that are not installed on it.
        clock_s: how far its clock seems to be ahead.
        limits: what holds them, as in "cgroup v1".
        pid, started: of the process that holds its namespaces, and when that was started, in clock ticks after boot.
    """

    name: str
    number: int
    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    without: tuple[str, ...] = ()
    clock_s: float = 0.0
    limits: str = ""
    pid: int = 0
    started: int = 0

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return base_folder() / self.name

    @property
    def address(self) -> str:
        """Of its sshd, port 22."""
        return address(self.number)

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return bool(self.pid) and started(self.pid) == self.started

    @property
    def groups(self) -> Groups:
        """Its control groups."""
        return groups(self.number) if self.limits.startswith("cgroup") else Groups(self.limits, {})

    def entry(self) -> BoardEntry:
        """What a harness needs to know of it."""
        return BoardEntry(
            name=self.name,
            transport="ssh",
            host=self.address,
            user="root",
            key=str(self.folder / "client"),
            host_key=(self.folder / "host.pub").read_text(encoding="ascii").strip(),
            work="/data/edgeseg",
            command=(sys.executable, "-m", "edgeseg.cli"),
            python=sys.executable,
        )

    def inside(self, *command: str) -> str:
        """Run a command on it without its network. Raises BoardError where it fails."""
        first = self.first_pid
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--net", "--root", "--wd=/")
        enter = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@"'
        entrances = self.groups.entrances
        return run(
            "sh", "-c", enter, "sh", *entrances, "--", "nsenter", f"--target={first}", *namespaces, "--", *command
        )

    @property
    def first_pid(self) -> int:
        """The id, here, of its process 1. Raises BoardError where it is off."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return int(children.read_text(encoding="ascii").split()[0])
        except (OSError, IndexError) as error:
            raise BoardError(f"the emulated board {self.name} is off") from error

    def strays(self) -> list[str]:
        """Command lines of what runs on it beside its own first process and its sshd."""
        found = []
        for pid in self.groups.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            line = " ".join(words).strip()
            if pid not in (self.pid, self.first_pid) and line and not line.startswith(("sshd:", "/usr/sbin/sshd")):
                found.append(f"{pid} {line[:_SHOWN]}")
        return found

    def plug(self, *, plugged: bool) -> None:
        """Plug its network cable in or out."""
        plug(self.number, plugged=plugged)


def board(name: str) -> EmulatedBoard:
    """A board by name. Raises BadInput where there is none."""
    found = {board.name: board for board in list_boards()}
    if name not in found:
        known = ", ".join(found) or "none"
        raise BadInput(f"there is no emulated board {name!r} (there is {known}): `edgeseg hil emulate up {name}`")
    return found[name]


def list_boards() -> list[EmulatedBoard]:
    """All of them, running or left by something that was killed. Raises BoardError where a file is no board's."""
    found = []
    for path in sorted(base_folder().glob("*/board.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=EmulatedBoard))
        except FileNotFoundError:
            continue  # taken down meanwhile
        except (OSError, msgspec.DecodeError) as error:
            raise BoardError(f"{path} cannot be read as an emulated board ({error}): remove {path.parent}") from error
    return found


def base_folder() -> Path:
    """Where the boards lie."""
    return Path(os.environ.get(FOLDER) or _DEFAULT)


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks after boot; None where it is gone: ids are given out again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
