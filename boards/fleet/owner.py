"""The name under which a run holds places: labgrid keeps nothing else of a client that has died."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgeseg.boards.emulated.board import started

_NAME = re.compile(
    r"(?P<host>[^/]+)/(?P<user>[^/:]+):(?P<run>[^/:]*):(?P<pid>[0-9]+):(?P<started>[0-9]+):(?P<machine>[0-9a-f]{8})"
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a place.

    labgrid expects the name of a client to be HOST/USER and compares it whole; the rest is behind the user.

    Attributes:
        host, user: as labgrid shows them.
        run: id of the run.
        pid, started: of the process that keeps the place, and when that was started, in clock ticks after boot.
        machine: of that process, and of its process ids: neither another machine nor another container has it.
    """

    host: str
    user: str
    run: str
    pid: int
    started: int
    machine: str

    @classmethod
    def of_this_process(cls, run: str) -> Self:
        """This process as the owner of places of a run."""
        host = socket.gethostname().replace("/", "-")
        user = re.sub(r"[/:]", "-", _user())
        return cls(host, user, run, os.getpid(), started(os.getpid()) or 0, _machine())

    @property
    def name(self) -> str:
        """As labgrid keeps it."""
        return f"{self.host}/{self.user}:{self.run}:{self.pid}:{self.started}:{self.machine}"

    @property
    def dead(self) -> bool:
        """Whether it is certain that the process is gone: known only of those of this machine."""
        return self.machine == _machine() and started(self.pid) != self.started

    @property
    def description(self) -> str:
        """For people."""
        return f"run {self.run} ({self.user}@{self.host})"


def parse_owner(name: str) -> Owner | None:
    """The owner of that name; None for a client that is not edgeseg's."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    words = found.groupdict()
    return Owner(words["host"], words["user"], words["run"], int(words["pid"]), int(words["started"]), words["machine"])


def describe_owner(name: str) -> str:
    """An owner for people, of edgeseg or any other client of labgrid."""
    owner = parse_owner(name)
    return owner.description if owner else name


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    space = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(boot + bytes(space)).hexdigest()[:8]
