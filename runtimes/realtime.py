"""Real-time scheduling, locked memory and chosen processors, as far as this process may have them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from edgeseg.errors import BadInput

_CURRENT, _FUTURE, _ON_FAULT = 1, 2, 4  # mlockall's MCL_*
_CAP_IPC_LOCK = 14
_ABOVE = 1  # what the watchdog and the capture have more than the rest
_SWITCH_INTERVAL_S = 0.0005
_RESET_ON_FORK = getattr(os, "SCHED_RESET_ON_FORK", 0)
_NAMES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5}


@dataclass(frozen=True, slots=True)
class RealTime:
    """What holds for this process after `apply`; a context manager that takes it back.

    Attributes:
        scheduler: "SCHED_FIFO", or what the calling thread has else.
        priority: 1 to 99; 0 without a real-time scheduler.
        memory_locked: whether nothing that is in memory is paged out any more.
        cpus: the processors that the calling thread may run on.
        refused: what was asked for and is not permitted here, each with the reason and what to do.
    """

    scheduler: str
    priority: int
    memory_locked: bool
    cpus: tuple[int, ...]
    refused: tuple[str, ...]
    _before: tuple[_Thread, ...] = field(default=(), repr=False)
    _interval_s: float = field(default=0.005, repr=False)

    def undo(self) -> None:
        """Give the threads that were there before their scheduling back, and unlock the memory."""
        for thread in self._before:
            thread.restore()
        if self.memory_locked:
            _libc().munlockall()
        sys.setswitchinterval(self._interval_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.undo()


@dataclass(frozen=True, slots=True)
class _Thread:
    """How a thread was scheduled."""

    id: int
    policy: int
    priority: int
    cpus: frozenset[int]

    @classmethod
    def of(cls, id: int) -> _Thread:
        return cls(
            id, os.sched_getscheduler(id), os.sched_getparam(id).sched_priority, frozenset(os.sched_getaffinity(id))
        )

    def restore(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(self.id, self.cpus)
            os.sched_setscheduler(self.id, self.policy, os.sched_param(self.priority))


def apply(priority: int = 50, cpus: Iterable[int] | None = None, lock_memory: bool = True) -> RealTime:
    """Ask for SCHED_FIFO, locked memory and processors, for every thread of this process and those it starts later.

    What is not permitted is left as it is and said in `refused`. Only pages that are touched are locked, so that a
    process does not grow by it. A thread that runs Python code is asked for the interpreter's lock every half
    millisecond instead of every five: a consumer that computes in Python keeps the stream's threads waiting otherwise.

    Args:
        priority: 1 to 98; the watchdog and the capture of a stream have one more.
        cpus: processors to run on, as in {2, 3}; None for no change.
        lock_memory: whether to lock the memory.

    Raises:
        BadInput: a priority out of range, or an empty set of processors.
    """
    highest = os.sched_get_priority_max(os.SCHED_FIFO) - _ABOVE
    if not 1 <= priority <= highest:
        raise BadInput(f"the real-time priority is {priority}, expected 1 to {highest}")
    wanted = None if cpus is None else frozenset(cpus)
    if wanted is not None and not wanted:
        raise BadInput("no processor was chosen for the stream, expected at least one")
    before = _threads()
    refused = [_schedule(before, priority), _bind(before, wanted), _lock() if lock_memory else None]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(min(interval_s, _SWITCH_INTERVAL_S))
    now = _Thread.of(0)
    return RealTime(
        scheduler=next((name for name, number in _NAMES.items() if number == now.policy & ~_RESET_ON_FORK), "unknown"),
        priority=now.priority,
        memory_locked=lock_memory and refused[2] is None,
        cpus=tuple(sorted(now.cpus)),
        refused=tuple(reason for reason in refused if reason),
        _before=before,
        _interval_s=interval_s,
    )


def raise_priority() -> None:
    """Put the calling thread above the others of this process where they have a real-time priority."""
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) & ~_RESET_ON_FORK == os.SCHED_FIFO:
            above = min(os.sched_getparam(0).sched_priority + _ABOVE, os.sched_get_priority_max(os.SCHED_FIFO))
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(above))


def demote(thread: int) -> None:
    """Take the real-time priority from a thread of this process."""
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(thread) & ~_RESET_ON_FORK == os.SCHED_FIFO:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def starved_s(thread: int) -> float:
    """For how long a thread of this process was ready to run and got no processor; 0 where Linux does not tell."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _threads() -> tuple[_Thread, ...]:
    found = []
    for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are all that is needed
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found.append(_Thread.of(int(name)))
    return tuple(found)


def _schedule(threads: Iterable[_Thread], priority: int) -> str | None:
    try:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread.id, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        fix = f"`ulimit -r {priority + _ABOVE}`, LimitRTPRIO= of the systemd unit, or CAP_SYS_NICE"
        return f"SCHED_FIFO is not permitted ({error.strerror}): give {fix}"
    return None


def _bind(threads: Iterable[_Thread], cpus: frozenset[int] | None) -> str | None:
    if cpus is None:
        return None
    try:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cpus)
    except (OSError, ValueError, OverflowError) as error:
        there = sorted(os.sched_getaffinity(0))
        return f"processors {sorted(cpus)} are not permitted ({error}): choose from {there}, or widen the cpuset"
    return None


def _lock() -> str | None:
    fix = "give `ulimit -l unlimited`, LimitMEMLOCK=infinity of the systemd unit, or CAP_IPC_LOCK"
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    # Under a limit the call may succeed, and every later allocation beyond it fail.
    if limit != resource.RLIM_INFINITY and not _may_lock():
        return f"locked memory is limited to {limit / (1 << 20):.0f} MB: {fix}"
    if _libc().mlockall(_CURRENT | _FUTURE | _ON_FAULT) != 0:
        number = ctypes.get_errno()
        return f"memory cannot be locked ({os.strerror(number)}): {fix}"
    return None


def _may_lock() -> bool:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_bytes().splitlines():
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
