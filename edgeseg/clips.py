"""Clips (MP4, AVI, Matroska) as frames with times, read one at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2

from edgeseg.errors import BadInput
from edgeseg.frame_source import Counts
from edgeseg.images import check_pixels, quiet_opencv
from edgeseg.types import Frame

_QUICKTIME = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
_MATROSKA = b"\x1a\x45\xdf\xa3"
# Damaged frames in a row after which a clip is taken to have ended: four seconds of 25 frames.
_MOST_DAMAGED = 100


def is_clip(head: bytes) -> bool:
    """Whether the first bytes of a file (12 are enough) are those of an MP4, QuickTime, AVI or Matroska container.

    Nothing else reaches the decoder: FFmpeg would also follow playlists to other files and hosts.
    """
    return head[4:8] in _QUICKTIME or (head[:4] == b"RIFF" and head[8:11] == b"AVI") or head[:4] == _MATROSKA


def quiet_ffmpeg() -> None:
    """Keep FFmpeg's own messages off stderr, beside the one line that edgeseg prints. Read once, when it is loaded."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class Clip:
    """An opened clip.

    Attributes:
        length: number of frames that the container announces, None where it does not.
        rate_hz: mean frame rate, None where unknown.
    """

    def __init__(self, path: Path) -> None:
        """Open a clip. Raises BadInput where it cannot be opened or its frames have more than 2**26 pixels."""
        self._path = path
        quiet_ffmpeg()
        with quiet_opencv():
            # From the root: FFmpeg would take a relative path such as `concat:a` or `http:b` for a protocol.
            self._capture = cv2.VideoCapture(str(path.absolute()))
        if not self._capture.isOpened():
            raise BadInput(f"{path} cannot be opened as a clip: it is truncated, damaged or has an unknown codec")
        try:
            check_pixels(*(int(self._get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)))
        except BadInput as error:
            raise BadInput(f"{path} {error}") from None
        count, rate = self._get(cv2.CAP_PROP_FRAME_COUNT), self._get(cv2.CAP_PROP_FPS)
        self.length = int(count) if 0 < count < 1 << 31 else None
        self.rate_hz = rate if 0 < rate < 1e4 else None

    def frames(self, counts: Counts) -> Iterator[tuple[int, Frame, float | None]]:
        """Positions in the clip, frames [H, W, 3] RGB uint8 and their times in seconds (None where unknown).

        Frames that cannot be decoded are passed over and counted in `counts.damaged`. What FFmpeg conceals (it fills
        the damaged part of a picture from what is around it) cannot be told from a sound frame. A clip that ends early
        yields what is there. One frame or 1 % less than announced is not held against it: some containers only
        estimate their length.

        Raises:
            BadInput: at the end, where no frame or fewer than announced are there.
        """
        index = missed = 0
        while not self._is_over(index, missed):
            if (frame := self._read()) is None:
                missed += 1
                continue
            counts.damaged += missed
            index += missed
            missed = 0
            yield index, frame, self._time(index)
            index += 1
        if index == 0:
            raise BadInput(f"{self._path} has no frame that can be decoded")
        if self.length is not None and index < self.length - max(1, self.length // 100):
            raise BadInput(f"{self._path} ends after {index} of {self.length} frames: it is truncated or damaged")

    def close(self) -> None:
        """Free the decoder."""
        self._capture.release()

    def _is_over(self, index: int, missed: int) -> bool:
        # FFmpeg says "no frame" both of a damaged one and of the end: only what follows tells them apart.
        complete = self.length is not None and index >= self.length
        return missed >= (1 if complete else _MOST_DAMAGED)

    def _read(self) -> Frame | None:
        with quiet_opencv():
            there, frame = self._capture.read()
        if not there:
            return None
        return frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def _time(self, index: int) -> float | None:
        # The frame's own time stamp: ultrasound clips often have a varying rate. Only some backends know it.
        stamp = self._get(cv2.CAP_PROP_POS_MSEC)
        if index == 0 or stamp > 0:
            return stamp / 1e3
        return index / self.rate_hz if self.rate_hz else None

    def _get(self, property_id: int) -> float:
        value = self._capture.get(property_id)
        return value if math.isfinite(value) else 0.0
