"""Frames from another process through a ring in POSIX shared memory: the newest one wins, torn ones are never seen."""

from __future__ import annotations

import mmap
import os
import stat
import threading
import time
from pathlib import Path

import numpy as np

from edgeseg.errors import BadInput, NoSuchDevice
from edgeseg.frame_source import Counts, FrameSource, SourceKind
from edgeseg.images import LARGEST_PIXELS
from edgeseg.sources import ring
from edgeseg.sources.live import Ended, Gone, Shot, items, keep_reading

PATIENCE_S = 10.0
_WAIT_S = 0.1


def open_shared(spec: str, *, patience_s: float = PATIENCE_S) -> FrameSource:
    """Open `shm:NAME`, a ring that a `FrameRing` or a program in another language writes.

    Each frame is the newest at the time; frames that were written over are counted in `skipped`. The source ends where
    the producer closes the ring. Where the producer dies, it waits for a new one.

    Args:
        spec: as above.
        patience_s: how long to wait for a new producer.

    Raises:
        NoSuchDevice: there is no such ring, or its producer is dead.
        BadInput: it belongs to another user, or is no ring; later, where its header does not hold together or no new
            producer came.
    """
    name = spec.removeprefix("shm:")
    reader = _Reader(name, ring.file_of(name))
    try:
        reader.open()
    except Gone as gone:
        raise NoSuchDevice(f"shm:{name} cannot be opened: {gone}") from None
    counts, stopped = Counts(), reader.stopped
    shots = keep_reading(reader, f"shm:{name}", counts, stopped, patience_s)
    return FrameSource(
        f"shm:{name}",
        SourceKind.SHARED,
        items(shots, name, counts),
        live=True,
        counts=counts,
        stop=reader.stop,
        close=reader.close,
    )


class _Reader:
    def __init__(self, name: str, path: Path) -> None:
        self.stopped = threading.Event()
        self._name, self._path = name, path
        self._fd = -1
        self._slots = self._slot_bytes = self._seen = 0
        self._header: mmap.mmap | None = None
        self._doorbell: ring.Doorbell | None = None
        self._swap = threading.Lock()

    def open(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Gone("there is no such ring, start its producer first") from None
        except OSError as error:
            raise BadInput(f"shm:{self._name} cannot be opened: {error.strerror}") from None
        try:
            self._slots, self._slot_bytes = self._check(fd)
            self._header = mmap.mmap(fd, ring.HEADER_BYTES)
        except BaseException:
            os.close(fd)
            raise
        with self._swap:
            self._doorbell = ring.Doorbell(memoryview(self._header))
        self._fd, self._seen = fd, 0

    def read(self) -> Shot | None:
        assert self._doorbell is not None
        count = self._doorbell.value()
        header = ring.pread_exactly(self._fd, ring.HEADER.size, 0)
        if header is None:
            raise Gone("its memory was cut off")
        *_, newest, _, closed = ring.HEADER.unpack(header)
        if newest == self._seen:
            if closed:
                raise Ended
            self._wait(count)
            return None
        shot = self._copy(newest)
        if shot is None:
            self._wait(count)
        return shot

    def stop(self) -> None:
        self.stopped.set()
        with self._swap:
            if self._doorbell is not None:
                self._doorbell.wake()

    def close(self) -> None:
        with self._swap:
            if self._doorbell is not None:
                self._doorbell.close()
                self._doorbell = None
        if self._header is not None:
            self._header.close()
            self._header = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _wait(self, count: int) -> None:
        assert self._doorbell is not None
        self._doorbell.wait(count, _WAIT_S)
        if self._doorbell.value() == count and not ring.is_held(self._fd):
            raise Gone("its producer ended without closing it")

    def _copy(self, newest: int) -> Shot | None:
        """The frame of that number, None where it is being written over."""
        start = ring.HEADER_BYTES + (newest - 1) % self._slots * self._slot_bytes
        before = ring.pread_exactly(self._fd, ring.SLOT.size, start)
        if before is None:
            raise Gone("its memory was cut off")
        sequence, width, height, channels, _, captured_ns, size_mm = ring.SLOT.unpack(before)
        if sequence != 2 * newest:
            return None
        size = width * height * channels
        if channels not in (1, 3) or not 0 < size <= self._slot_bytes - ring.SLOT_HEADER_BYTES:
            raise BadInput(f"shm:{self._name} has a frame of {width}x{height}x{channels}, more than fits into its slot")
        frame = np.empty((height, width) if channels == 1 else (height, width, 3), np.uint8)
        count = os.preadv(self._fd, [frame.reshape(-1).data], start + ring.SLOT_HEADER_BYTES)
        ring.fence()
        if count != size or ring.pread_exactly(self._fd, 8, start) != before[:8]:
            return None
        skipped, self._seen = max(0, newest - self._seen - 1) if self._seen else 0, newest
        now_s = time.monotonic()
        captured_s = captured_ns / 1e9
        known = 0 < size_mm < float("inf")
        return Shot(frame, captured_s if 0 < captured_s <= now_s else now_s, size_mm if known else None, skipped)

    def _check(self, fd: int) -> tuple[int, int]:
        """Slots and bytes of a slot. Raises Gone for a ring whose producer is dead, BadInput for one not to be used."""
        name, status = f"shm:{self._name}", os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise BadInput(f"{name} may be written by others, expected shared memory of this user with mode 0600")
        header = ring.pread_exactly(fd, ring.HEADER.size, 0)
        if header is None or header[:8] == bytes(8):
            raise Gone("its producer has not finished making it")
        magic, version, slots, slot_bytes, *_ = ring.HEADER.unpack(header)
        if magic != ring.MAGIC or version != ring.VERSION:
            raise BadInput(f"{name} is no ring of frames, or one of another version, expected {ring.MAGIC!r} 1")
        largest = ring.slot_bytes(3 * LARGEST_PIXELS)
        if not (
            2 <= slots <= ring.MOST_SLOTS and ring.SLOT_HEADER_BYTES < slot_bytes <= largest and slot_bytes % 64 == 0
        ):
            raise BadInput(f"{name} has {slots} slots of {slot_bytes} bytes, which is out of range")
        if status.st_size < ring.HEADER_BYTES + slots * slot_bytes:
            raise BadInput(f"{name} has {slots} slots of {slot_bytes} bytes in {status.st_size}, which do not fit")
        if not ring.is_held(fd):
            raise Gone("its producer has ended without closing it")
        return slots, slot_bytes
