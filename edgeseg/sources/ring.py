"""The layout of a ring of frames in shared memory, and its doorbell. docs/sources.md has it byte by byte.

    header, 64 bytes      magic, version, slots, bytes of a slot, newest frame, doorbell, closed
    slot 0                sequence, width, height, channels, capture time, pixel size; at 64 the pixels
    slot 1 ...

Frame n (from 1) lies in slot (n - 1) % slots. Its sequence is 2n - 1 while it is written and 2n once it is complete, so
that a reader that finds 2n before and after copying the pixels has copied nothing else.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import re
import struct
import threading
import time
from pathlib import Path

from edgeseg.errors import BadInput

FOLDER = Path("/dev/shm")
MAGIC = b"EDGERING"
VERSION = 1
HEADER = struct.Struct("<8sIIQQII")  # magic, version, slots, slot bytes, newest, doorbell, closed
HEADER_BYTES = 64
NEWEST_AT, DOORBELL_AT, CLOSED_AT = 24, 32, 36
SLOT = struct.Struct("<QIIIIQd")  # sequence, width, height, channels, reserved, captured ns, pixel size in mm
SLOT_HEADER_BYTES = 64
MOST_SLOTS = 64

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98, "armv7l": 240, "armv8l": 240, "riscv64": 98}
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_EVERYONE = (1 << 31) - 1
_POLL_S = 0.001


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def file_of(name: str) -> Path:
    """The file of a ring. Raises BadInput for a name that is none: letters, digits, `_`, `-` and `.` are allowed."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name of shared memory, expected letters, digits, _, - and inner dots")
    return FOLDER / name


def slot_bytes(pixels: int) -> int:
    """Bytes of a slot for so many bytes of pixels: whole cache lines."""
    return SLOT_HEADER_BYTES + -(-pixels // 64) * 64


class Doorbell:
    """A 32-bit word in shared memory that the producer counts up and readers sleep on (a futex)."""

    def __init__(self, memory: memoryview | bytearray) -> None:
        """`memory` is the mapped header, writable; it stays mapped as long as this object is used."""
        self._word = ctypes.c_uint32.from_buffer(memory, DOORBELL_AT)
        self._number = _FUTEX_NUMBER.get(platform.machine())
        self._call = ctypes.CDLL(None, use_errno=True).syscall

    def value(self) -> int:
        """The count now; given to `wait`, so that no ring in between is missed."""
        return self._word.value

    def ring(self) -> None:
        """Count up and wake all readers."""
        self._word.value = (self._word.value + 1) & 0xFFFFFFFF
        self.wake()

    def wake(self) -> None:
        """Wake all readers, without a new count."""
        if self._number is not None:
            self._call(self._number, ctypes.byref(self._word), _FUTEX_WAKE, _EVERYONE, None, None, 0)

    def wait(self, value: int, seconds: float) -> None:
        """Sleep until somebody rings or wakes, for at most `seconds`; not at all where the count is not `value`."""
        if self._number is None:
            until = time.monotonic() + seconds
            while self._word.value == value and time.monotonic() < until:
                time.sleep(_POLL_S)
            return
        limit = _Time(int(seconds), int(seconds % 1 * 1e9))
        self._call(self._number, ctypes.byref(self._word), _FUTEX_WAIT, value, ctypes.byref(limit), None, 0)

    def close(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        del self._word


_first, _second = threading.Lock(), threading.Lock()


def fence() -> None:
    """Keep memory accesses before it before those after it, also on processors that reorder them.

    Python has no fence. A release of one lock followed by an acquisition of another is ordered on x86-64, and on ARMv8
    by what its load-acquire and store-release promise each other.
    """
    with _first:
        pass
    with _second:
        pass


def pread_exactly(fd: int, count: int, offset: int) -> bytes | None:
    """So many bytes of a file, None where it is shorter: a mapping would kill the process there."""
    found = os.pread(fd, count, offset)
    return found if len(found) == count else None


def is_held(fd: int) -> bool:
    """Whether the producer lives: it holds a lock on the file, which the kernel takes away when it dies."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
