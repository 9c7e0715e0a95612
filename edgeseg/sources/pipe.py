"""Raw frames from standard input, a FIFO or an inherited descriptor."""

from __future__ import annotations

import math
import os
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeseg.errors import BadInput
from edgeseg.frame_source import Counts, FrameSource, SourceKind
from edgeseg.images import check_pixels
from edgeseg.sources.live import Shot, items
from edgeseg.sources.options import Options
from edgeseg.types import Frame

# Before each frame, unless the options give the size: mark, width, height, channels, edge of a pixel in mm (0 where
# unknown), capture time by CLOCK_MONOTONIC in ns (0 where unknown). Little-endian, 32 bytes.
HEADER = struct.Struct("<4sIIIdQ")
MARK = b"ESF1"

_BIGGEST_READ = 1 << 20


def frame_header(frame: Frame, *, pixel_size_mm: float | None = None, captured_s: float | None = None) -> bytes:
    """The 32 bytes that go before a frame [H, W] or [H, W, 3] uint8; after them come its bytes, row by row."""
    height, width = frame.shape[:2]
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    return HEADER.pack(MARK, width, height, channels, pixel_size_mm or 0.0, round((captured_s or 0.0) * 1e9))


def open_pipe(spec: str) -> FrameSource:
    """Open `pipe:-` (standard input), `pipe:N` (a descriptor) or `pipe:PATH` (a FIFO, or a file of raw frames).

    With the options `width` and `height`, and `channels` (1 or 3, by default 1), `pixel_size_mm` and `fps` (only what
    the source says of itself), the frames are bare: `width * height * channels` bytes each, row by row, RGB where there
    are three. Without a size each frame has a header of 32 bytes before it (`frame_header`).

    The frames are read as they are asked for: a writer is held up where nobody reads.

    Raises:
        BadInput: wrong options, or what cannot be opened; later, where it ends within a frame.
    """
    options = Options(spec)
    width, height = options.integer("width", 1, 1 << 16), options.integer("height", 1, 1 << 16)
    channels, size_mm = options.integer("channels", 1, 3), options.figure("pixel_size_mm", 100)
    rate_hz = options.figure("fps", 10_000)
    options.check_all_used()
    if (width is None) != (height is None) or channels == 2 or (width is None and (channels or size_mm)):
        raise BadInput(f"{spec}: expected width and height together, and with them channels=1 or 3, pixel_size_mm")
    shape = None if width is None or height is None else _shape(width, height, channels or 1, spec)
    pipe = _Pipe(options.target, shape, size_mm)
    counts = Counts()
    return FrameSource(
        options.target,
        SourceKind.PIPE,
        items(pipe.shots(), options.target, counts),
        rate_hz=rate_hz,
        live=True,
        counts=counts,
        stop=pipe.stop,
        close=pipe.close,
    )


class _Pipe:
    def __init__(self, name: str, shape: tuple[int, ...] | None, pixel_size_mm: float | None) -> None:
        self._name, self._shape, self._pixel_size_mm = name, shape, pixel_size_mm
        self._frames = 0
        self._fd = _open(name)
        # Written to by `stop`: it ends a wait for the writer.
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def shots(self) -> Iterator[Shot]:
        while True:
            shape, size_mm, captured_s = self._shape, self._pixel_size_mm, 0.0
            if shape is None:
                header = bytearray(HEADER.size)
                if not self._fill(memoryview(header), may_end=True):
                    return
                shape, size_mm, captured_s = self._parse(header)
            frame = np.empty(shape, np.uint8)
            if not self._fill(frame.reshape(-1).data, may_end=self._shape is not None):
                return
            now_s = time.monotonic()
            self._frames += 1
            yield Shot(frame, captured_s if 0 < captured_s <= now_s else now_s, size_mm)

    def stop(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        for fd in (self._fd, self._bell):
            os.close(fd)
        self._fd = self._bell = -1

    def _fill(self, target: memoryview, *, may_end: bool) -> bool:
        """Read until `target` is full. False at the end, where that comes before the first byte and is allowed."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._bell, select.POLLIN)
        done = 0
        while done < len(target):
            ready = [fd for fd, _ in poller.poll()]
            if self._bell in ready:
                return False
            try:
                count = os.readv(self._fd, [target[done : done + _BIGGEST_READ]])
            except BlockingIOError:
                continue
            if count == 0 and done == 0 and may_end:
                return False
            if count == 0:
                raise BadInput(
                    f"{self._name} ends within frame {self._frames}, after {done} of {len(target)} bytes: "
                    "the writer stopped early, or the size given is not that of its frames"
                )
            done += count
        return True

    def _parse(self, header: bytearray) -> tuple[tuple[int, ...], float | None, float]:
        mark, width, height, channels, size_mm, captured_ns = HEADER.unpack(header)
        where = f"{self._name}, frame {self._frames}:"
        if mark != MARK or channels not in (1, 3):
            raise BadInput(f"{where} no header of a frame, expected {MARK!r}; give width and height for bare frames")
        shape = _shape(width, height, channels, where)
        known = size_mm > 0 and math.isfinite(size_mm)
        return shape, size_mm if known else None, captured_ns / 1e9


def _shape(width: int, height: int, channels: int, where: str) -> tuple[int, ...]:
    try:
        check_pixels(width, height)
    except BadInput as error:
        raise BadInput(f"{where} {error}") from None
    return (height, width) if channels == 1 else (height, width, channels)


def _open(name: str) -> int:
    where = name.removeprefix("pipe:")
    try:
        if where == "-":
            return os.dup(0)
        if where.isascii() and where.isdecimal():
            return os.dup(int(where))
        path = Path(where)
        if path.is_fifo() or path.is_file():
            # A FIFO without a writer would block here; so it is waited for with the first frame.
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, OverflowError) as error:
        raise BadInput(f"{name} cannot be opened: {getattr(error, 'strerror', error)}") from None
    raise BadInput(f"{name} cannot be opened: {where or 'nothing'} is no FIFO or file, expected -, a descriptor or one")
