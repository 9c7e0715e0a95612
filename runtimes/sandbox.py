"""What a process gives up before it meets a file that nobody vouched for: memory, files, privileges, the network.

Everything here is Linux's own, by resource limits, prctl and Landlock; nothing needs root. It holds for the process
that calls it and for every thread it starts later, so it is called while there is one thread, before numpy.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BadInput

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_ABI_QUERY, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
# Reading, writing, making, truncating and removing plain files and folders: no links, pipes, sockets, devices.
_SCRATCH_RIGHTS = sum(1 << bit for bit in (1, 2, 3, 4, 5, 7, 8, 14))
_FIRST_RIGHTS = 13  # of ABI 1; later ones add one bit each
_RIGHTS_ADDED = {2: 1, 3: 1, 5: 1}  # ABI: number of file rights that came with it
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
_CAPABILITIES_V3 = 0x20080522
_F_SETSIG = 10
_MB = 1 << 20
_SCRATCH_MB = 16

# What an engine reads besides itself: libraries, the processor's description, its own limits.
_SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/sys", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/proc/filesystems"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine in a process of its own may use.

    Attributes:
        memory_mb: address space in MiB, above what the process has mapped with the engine imported.
        load_s: seconds for one load, and for finding out what the engine executes.
        run_s: seconds for one run.
    """

    memory_mb: int = 1024
    load_s: float = 60.0
    run_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("memory_mb", "load_s", "run_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"the limit {name} is {getattr(self, name)}, expected more than 0")


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def confine(readable: Iterable[str] = (), scratch: str = "") -> tuple[str, ...]:
    """Give up everything but memory and processor time. To be called while the process has one thread.

    Args:
        readable: files and folders that may still be read, besides Python's and the system's libraries.
        scratch: the one folder in which plain files of up to 16 MB may be written; "" for none.

    Returns:
        What holds from now on: "no core dumps", "no writes to files" (or "files up to 16 MB"), "no new privileges",
        "no capabilities"; "files by landlock" (nothing else is read, nothing executed, nothing written outside of
        `scratch`), "tcp by landlock" and "signals by landlock" as far as the kernel has them.
    """
    applied = ["no core dumps", f"files up to {_SCRATCH_MB} MB" if scratch else "no writes to files"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest = _SCRATCH_MB * _MB if scratch else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("no new privileges", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1)),
        ("no capabilities", _drop_capabilities),
    )
    applied += [name for name, step in steps if step()]
    return (*applied, *_landlock([*_SYSTEM, sys.prefix, sys.base_prefix, *readable], scratch))


def limit_memory(memory_mb: int) -> str:
    """Let the process map `memory_mb` MiB more than it has now. Returns what was applied, as in "memory 1024 MB"."""
    # Threads reserve address space for stacks that they hardly touch.
    stacks = (os.cpu_count() or 1) * 8 * _MB
    _lower(resource.RLIMIT_AS, _mapped_bytes() + memory_mb * _MB + stacks)
    return f"memory {memory_mb} MB"


def limit_data(size_bytes: int) -> None:
    """Let the process, and every one that it starts, have so much memory of its own: heaps, not files and libraries.

    For a workstation's converters, which map several times what they use.
    """
    _lower(resource.RLIMIT_DATA, size_bytes)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; at once where that has happened."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_pipe(descriptor: int) -> None:
    """Have the kernel end this process when the last writer of a pipe is gone, whatever this process does then."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([descriptor], [], [], 0)[0]:
        os.kill(os.getpid(), signal.SIGKILL)


def ending(code: int) -> str:
    """How a process ended, by the return code that Python gives it: "SIGSEGV", or "exit code 3"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def landlock_abi() -> int:
    """The version of Landlock that the kernel has and allows, 0 for none."""
    return max(_syscall(_CREATE_RULESET, None, 0, _ABI_QUERY), 0)


def _lower(kind: int, limit: int) -> None:
    """Set a limit for good, never above the one that is there."""
    _, hard = resource.getrlimit(kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _landlock(readable: Iterable[str], scratch: str) -> tuple[str, ...]:
    abi = landlock_abi()
    if not abi:
        return ()
    rights = _FIRST_RIGHTS + sum(count for since, count in _RIGHTS_ADDED.items() if abi >= since)
    ruleset = _Ruleset((1 << rights) - 1, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = _syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if rules < 0:
        return ()
    try:
        for path in readable:
            _allow(rules, path, _READ_FILE | _READ_DIR)
        _allow(rules, os.devnull, _READ_FILE | _WRITE_FILE)
        if scratch:
            _allow(rules, scratch, _SCRATCH_RIGHTS & ruleset.files)
        if _syscall(_RESTRICT_SELF, rules, 0) < 0:
            return ()
    finally:
        os.close(rules)
    names = ("files by landlock", "tcp by landlock", "signals by landlock")
    return names[: 1 + (abi >= 4) + (abi >= 6)]


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine, so there is nothing to allow
    try:
        if not Path(path).is_dir():
            rights &= ~_READ_DIR
        rule = _PathBeneath(rights, descriptor)
        _syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _drop_capabilities() -> bool:
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    none = (ctypes.c_uint32 * 6)()
    capset = getattr(ctypes.CDLL(None), "capset", None)
    return capset is not None and capset(ctypes.byref(header), ctypes.byref(none)) == 0


def _prctl(option: int, value: int) -> bool:
    return bool(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


def _syscall(number: int, *arguments: object) -> int:
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), *words))


def _mapped_bytes() -> int:
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0
