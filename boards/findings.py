"""What the doctor looks at, and what it finds."""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeseg.boards.detect import Board
from edgeseg.boards.profile import Profile
from edgeseg.boards.sysfs import word
from edgeseg.boards.telemetry import Reading

CAP_IPC_LOCK, CAP_SYS_NICE = 14, 23
UNLIMITED = -1
_PACKAGES = ("ai-edge-litert", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tflite-runtime")


class Severity(StrEnum):
    """How bad: an error keeps edgeseg from doing its work here, a warning costs speed or certainty."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or could be better.

    Attributes:
        code: the kind of finding, for scripts.
        severity: how bad it is.
        what: what was found.
        why: why it matters.
        fix: a command, or what else to do.
    """

    code: str
    severity: Severity
    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device of an engine: whether the engine lists it, and whether it ran the probe model right.

    `verified` is False for devices that edgeseg's own tests never ran on.
    """

    name: str
    listed: bool
    usable: bool
    reason: str = ""
    verified: bool = True


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine on this machine; `version` is None where it is not installed, `reason` says what is wrong with it."""

    name: str
    install: str
    version: str | None = None
    reason: str = ""
    devices: tuple[DeviceState, ...] = ()

    @property
    def works(self) -> bool:
        """Whether any of its devices does."""
        return any(device.usable for device in self.devices)


@dataclass(frozen=True, slots=True)
class Process:
    """What this process is and may do.

    Attributes:
        uid: effective user; gids: all its groups.
        rtprio: RLIMIT_RTPRIO; memlock_bytes: RLIMIT_MEMLOCK, -1 without a limit.
        capabilities: the effective ones, as bits.
        libc: as in "glibc 2.36".
        packages: versions of the packages that the doctor knows about.
        now: seconds since 1970.
        user: the user's name.
    """

    uid: int
    gids: frozenset[int]
    rtprio: int
    memlock_bytes: int
    capabilities: int
    libc: str
    packages: Mapping[str, str]
    now: float
    user: str = "$USER"

    def may(self, path: Path, bits: int) -> bool:
        """Whether the mode of a file allows this process all of the bits (4 read, 2 write)."""
        try:
            found = path.stat()
        except OSError:
            return False
        owned = stat.S_IMODE(found.st_mode)
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        return self.uid == 0 or owned >> shift & bits == bits

    def can(self, capability: int) -> bool:
        """Whether it has a capability, by its number."""
        return bool(self.capabilities >> capability & 1)


@dataclass(frozen=True, slots=True)
class Machine:
    """All that the checks look at; `profile_error` is what is wrong with the user's own profiles."""

    root: Path
    board: Board
    profile: Profile
    process: Process
    engines: tuple[EngineState, ...]
    reading: Reading
    profile_error: str = ""

    def engine(self, name: str) -> EngineState | None:
        """The state of an engine; None where it was not asked for."""
        return next((engine for engine in self.engines if engine.name == name), None)


def current_process() -> Process:
    """This process, as the kernel and the packages' metadata tell."""
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    rtprio = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    return Process(
        uid=os.geteuid(),
        gids=frozenset((os.getegid(), *os.getgroups())),
        rtprio=99 if rtprio == resource.RLIM_INFINITY else rtprio,
        memlock_bytes=UNLIMITED if memlock == resource.RLIM_INFINITY else memlock,
        capabilities=_capabilities(),
        libc=_libc(),
        packages=dict(_versions(_PACKAGES)),
        now=time.time(),
        user=os.environ.get("USER") or "$USER",
    )


def _capabilities() -> int:
    lines = word(Path("/proc/self/status")).splitlines()
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _libc() -> str:
    function = getattr(ctypes.CDLL(None), "gnu_get_libc_version", None)
    if function is None:
        return ""
    function.restype = ctypes.c_char_p
    return f"glibc {function().decode()}"


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
