"""The producer's side of a ring of frames in shared memory, for a program in Python."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
from pathlib import Path

import numpy as np

from edgeseg.errors import BadInput
from edgeseg.images import check_pixels
from edgeseg.sources import ring
from edgeseg.types import Frame


class FrameRing:
    """The producer's side of a ring; a context manager. One thread at a time puts frames into it."""

    def __init__(self, path: Path, fd: int, slots: int, slot_bytes: int) -> None:
        """Used by `create`."""
        self._path, self._fd, self._slots, self._slot_bytes = path, fd, slots, slot_bytes
        self._memory = mmap.mmap(fd, ring.HEADER_BYTES + slots * slot_bytes)
        self._bytes = memoryview(self._memory)
        self._words = self._bytes[: len(self._bytes) // 8 * 8].cast("Q")
        self._doorbell = ring.Doorbell(self._bytes)
        self._newest = 0
        ring.HEADER.pack_into(self._memory, 0, bytes(8), ring.VERSION, slots, slot_bytes, 0, 0, 0)
        ring.fence()
        # Last: a reader that finds the mark finds all of the header.
        self._bytes[:8] = ring.MAGIC

    @classmethod
    def create(cls, name: str, *, width: int, height: int, channels: int = 1, slots: int = 4) -> FrameRing:
        """Make a ring that only this user can open.

        Args:
            name: what readers give as `shm:NAME`.
            width, height, channels: of the largest frame that will be put in.
            slots: 2 to 64. A reader has `slots - 1` frame periods to copy a frame before it is written over.

        Raises:
            BadInput: a bad name or size, a ring of that name that another producer holds, or no room for it.
        """
        path = ring.file_of(name)
        try:
            check_pixels(width, height)
        except BadInput as error:
            raise BadInput(f"the ring {name} {error}") from None
        if channels not in (1, 3) or not 2 <= slots <= ring.MOST_SLOTS:
            raise BadInput(f"the ring {name}: expected 1 or 3 channels and 2 to {ring.MOST_SLOTS} slots")
        slot_bytes = ring.slot_bytes(width * height * channels)
        try:
            _remove_left_behind(path)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadInput(f"the ring {name} cannot be made: {error.strerror}") from None
        try:
            # Held as long as this process lives: that is how readers know that it does.
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Taken now: without room the process would be killed later, at the first write.
            os.posix_fallocate(fd, 0, ring.HEADER_BYTES + slots * slot_bytes)
        except OSError as error:
            path.unlink(missing_ok=True)
            os.close(fd)
            raise BadInput(f"the ring {name} cannot be made: {error.strerror}") from None
        return cls(path, fd, slots, slot_bytes)

    def put(self, frame: Frame, *, pixel_size_mm: float | None = None, captured_s: float | None = None) -> None:
        """Publish a frame [H, W] or [H, W, 3] uint8; never waits for a reader.

        Args:
            frame: at most as large as the ring was made for.
            pixel_size_mm: edge of a pixel, None where unknown.
            captured_s: by `time.monotonic()`; None for now.

        Raises:
            BadInput: another shape or type, or too large.
        """
        channels = 1 if frame.ndim == 2 else frame.shape[-1]
        if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or channels not in (1, 3):
            raise BadInput(f"the frame is {list(frame.shape)} {frame.dtype}, expected [H, W] or [H, W, 3] uint8")
        if ring.SLOT_HEADER_BYTES + frame.size > self._slot_bytes or not frame.size:
            raise BadInput(f"the frame has {frame.size} bytes, the ring {self._path.name} was made for smaller ones")
        number = self._newest + 1
        start = ring.HEADER_BYTES + (number - 1) % self._slots * self._slot_bytes
        captured_ns = round((time.monotonic() if captured_s is None else captured_s) * 1e9)
        height, width = frame.shape[:2]
        self._words[start // 8] = 2 * number - 1
        ring.fence()
        fields = (2 * number - 1, width, height, channels, 0, captured_ns, pixel_size_mm or 0.0)
        ring.SLOT.pack_into(self._memory, start, *fields)
        pixels = np.frombuffer(self._memory, np.uint8, frame.size, start + ring.SLOT_HEADER_BYTES)
        np.copyto(pixels.reshape(frame.shape), frame)
        ring.fence()
        self._words[start // 8] = 2 * number
        ring.fence()
        self._words[ring.NEWEST_AT // 8] = self._newest = number
        self._doorbell.ring()

    def close(self) -> None:
        """Tell the readers that no more frames come, and remove the ring; calling it twice is allowed."""
        if self._fd < 0:
            return
        self._bytes[ring.CLOSED_AT] = 1
        self._doorbell.ring()
        self._doorbell.close()
        self._words.release()
        self._bytes.release()
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1
        # An array of the last frame may still look into it; the mapping goes with it then.
        with contextlib.suppress(BufferError):
            self._memory.close()

    def __enter__(self) -> FrameRing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _remove_left_behind(path: Path) -> None:
    """Remove the ring of a producer that died. Raises BadInput where it lives, or where the file is no ring of ours."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if ring.pread_exactly(fd, 8, 0) not in (ring.MAGIC, bytes(8), None) or os.fstat(fd).st_uid != os.geteuid():
            raise BadInput(f"{path} is there and no ring of this user, choose another name")
        if ring.is_held(fd):
            raise BadInput(f"the ring {path.name} has a producer already, stop it or choose another name")
        # Unless another producer has replaced it meanwhile.
        if path.stat().st_ino == os.fstat(fd).st_ino:
            path.unlink()
    finally:
        os.close(fd)
