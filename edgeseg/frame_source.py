"""What every kind of input is turned into: an iterator of frames that another thread may close."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeseg.errors import BadInput
from edgeseg.types import Frame

_LONGEST_NAME = 120
_SQUARE_TOLERANCE = 0.01


class SourceKind(StrEnum):
    """What frames are read from."""

    IMAGE = "image"
    FOLDER = "folder"
    CLIP = "clip"
    DICOM = "dicom"
    CAMERA = "camera"
    PIPE = "pipe"
    SHARED = "shared memory"
    IGTL = "OpenIGTLink"


@dataclass(frozen=True, slots=True, eq=False)
class FrameItem:
    """One frame of a source.

    Attributes:
        frame: [H, W] gray or [H, W, 3] RGB, uint8; each frame of a source has a size of its own.
        name: unique in its source and safe as a file name: letters, digits, `-`, `_` and inner dots only.
        index: position in the source, from 0.
        time_s: time since the start of a clip or cine; None for stills and where the rate is unknown.
        pixel_size_mm: edge of a square pixel; None where unknown or not one figure for the whole frame.
        captured_s: when the frame was there, by `time.monotonic()`; None of what is only read from a file.
    """

    frame: Frame
    name: str
    index: int
    time_s: float | None = None
    pixel_size_mm: float | None = None
    captured_s: float | None = None


@dataclass(slots=True)
class Counts:
    """What a source passed over so far.

    Attributes:
        damaged: frames that could not be decoded.
        lost: how often the device or the other side went away and came back.
        skipped: frames of a live or paced source that a newer one took the place of before they were read.
    """

    damaged: int = 0
    lost: int = 0
    skipped: int = 0


class FrameSource:
    """An iterator of frames that holds one of them at a time; a context manager.

    It is read by one thread at a time. `close` may be called by any thread and ends a read that waits. A source that
    ends by itself before its first frame raises BadInput.

    Attributes:
        name: what to call it: the name of the file or folder, or how a live source was asked for.
        path: the file or folder; None of a live source.
        kind: what the frames are read from.
        length: number of frames announced, None where unknown.
        rate_hz: frames a second, None where unknown or no clip.
        live: whether frames come at a time of their own (`FrameItem.captured_s` is set); False of plain files.
    """

    def __init__(
        self,
        origin: Path | str,
        kind: SourceKind,
        items: Iterator[FrameItem],
        *,
        length: int | None = None,
        rate_hz: float | None = None,
        live: bool = False,
        counts: Counts | None = None,
        stop: Callable[[], None] | None = None,
        close: Callable[[], None] | None = None,
        reopen: Callable[[], FrameSource] | None = None,
    ) -> None:
        """Wrap what gives the frames.

        Args:
            origin: the path of a file or folder; text for anything else.
            kind: as the attribute.
            items: gives the frames; ends, or raises BadInput where the source ends badly.
            length: as the attribute.
            rate_hz: as the attribute.
            live: as the attribute.
            counts: what `items` counts while it runs.
            stop: makes a read that waits end soon; called from another thread than the read, perhaps several times.
            close: frees what `items` holds; called once, and never during a read by another thread.
            reopen: opens the same again from its start; None where that cannot be.
        """
        self.name = origin if isinstance(origin, str) else _name_of(origin)
        self.path = None if isinstance(origin, str) else origin
        self.kind = kind
        self.length = length
        self.rate_hz = rate_hz
        self.live = live
        self._items = items
        self._counts = counts or Counts()
        self._stop = stop
        self._close = close
        self._reopen = reopen
        self._closed = False
        self._begun = False
        # Re-entrant: a signal handler may close the source that its own thread is reading.
        self._reading = threading.RLock()

    @property
    def damaged(self) -> int:
        """Frames that could not be decoded and were passed over, so far."""
        return self._counts.damaged

    @property
    def lost(self) -> int:
        """How often the device or the other side went away and came back, so far."""
        return self._counts.lost

    @property
    def skipped(self) -> int:
        """Frames (of a paced source: due times) that a newer one took the place of before they were read, so far."""
        return self._counts.skipped

    def __iter__(self) -> Iterator[FrameItem]:
        return self

    def __next__(self) -> FrameItem:
        with self._reading:
            if self._closed:
                raise StopIteration
            try:
                item = next(self._items)
            except StopIteration:
                if self._closed or self._begun:
                    raise
                raise BadInput(f"{self.name} ended before its first frame") from None
            except Exception:
                # What fails because it was closed meanwhile has not failed.
                if self._closed:
                    raise StopIteration from None
                raise
            if self._closed:
                raise StopIteration
            self._begun = True
            return item

    def reopen(self) -> FrameSource:
        """The same source from its start, as another object. Raises BadInput for a live one, which has no start."""
        if self._reopen is None:
            raise BadInput(f"{self.name} cannot be read again from its start, expected a file or a folder")
        return self._reopen()

    def close(self) -> None:
        """Free what the source holds; a read by another thread ends. Calling it twice is allowed."""
        self._closed = True
        if self._stop:
            self._stop()
        with self._reading:
            close, self._close = self._close, None
            if close:
                close()

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _name_of(path: Path) -> str:
    return path.name if path.name.strip(".") else path.resolve().name or str(path)


def square_mm(sizes: Sequence[float]) -> float | None:
    """The one pixel edge that all figures agree on within 1 %, else None."""
    low, high = min(sizes), max(sizes)
    if not (low > 0 and math.isfinite(high)) or high - low > _SQUARE_TOLERANCE * high:
        return None
    return (low + high) / 2


def safe_name(text: str) -> str:
    """`text` as a file name that stays in its folder: every other character becomes `_`, outer dots go."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
    return kept.strip(".")[:_LONGEST_NAME].strip(".") or "frame"
