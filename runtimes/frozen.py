"""Whether the picture stands still: a probe that was frozen, a capture that repeats its last frame."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Frame

_SIDE = 64  # sampled pixels a side
_BLOCKS = 8  # a side: each is the mean of 8 x 8 sampled pixels
STILL_BLOCKS = 2  # that may change all the same: a clock, a cursor


class FreezeDetector:
    """Tells for how long a picture has not changed, from 64 x 64 of its pixels.

    A picture stands still while, against the frame that it has been compared with since it did, no more than 2 of 64
    blocks differ by half a gray level in their mean. The noise of a codec stays below that, live speckle does not.
    Blocks that change from one frame to the next (`python tools/stream_frozen.py`):

    | sequence | steps | least | median | longest standstill |
    |---|---|---|---|---|
    | SonoSite, a frozen picture with callipers, H.264, 47 steps bit-identical | 99 | 0 | 0 | 99 steps |
    | Clarius, live, H.264; each of the repeated frames is one step | 49 | 0 | 34 | 1 step |
    | Butterfly, phantom, live, H.264 | 368 | 17 | 35 | 0 steps |
    | SonoSite Turbo, heart, DICOM with JPEG; two frames are there twice | 29 | 0 | 25 | 1 step |
    | HC18, stills in the order of their names; some exams have one picture twice | 475 | 2 | 62 | 2 steps |

    Args:
        freeze_s: how long a picture has to stand still to count as frozen.

    Raises:
        BadInput: `freeze_s` is not above 0.
    """

    def __init__(self, freeze_s: float = 0.5) -> None:
        if not freeze_s > 0:
            raise BadInput(f"the time until a picture counts as frozen is {freeze_s} s, expected more than 0")
        self._freeze_s = freeze_s
        self._since_s = 0.0
        self._shape: tuple[int, ...] = ()
        self._reference: Frame | None = None

    def update(self, frame: Frame, clock_s: float) -> float:
        """Take the next frame in.

        Args:
            frame: [H, W] or [H, W, 3] uint8.
            clock_s: when it was captured, by any clock that goes on; where that goes back, all starts anew.

        Returns:
            For how long the picture has been the same, in s; 0 where that is less than `freeze_s`.
        """
        picture = sample(frame)
        if not self._is_still(frame.shape, picture, clock_s):
            self._shape, self._reference, self._since_s = frame.shape, picture, clock_s
        still_s = clock_s - self._since_s
        return still_s if still_s >= self._freeze_s else 0.0

    def _is_still(self, shape: tuple[int, ...], picture: Frame, clock_s: float) -> bool:
        if self._reference is None or shape != self._shape or clock_s < self._since_s:
            return False
        return changed_blocks(self._reference, picture) <= STILL_BLOCKS


def sample(frame: Frame) -> Frame:
    """Single pixels of a frame [H, W] or [H, W, 3] on a grid, [64, 64] uint8; of a colour frame the green ones."""
    picture = cast(Frame, cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST))
    return picture if picture.ndim == 2 else np.ascontiguousarray(picture[:, :, 1])


def changed_blocks(before: Frame, after: Frame) -> int:
    """In how many of 64 blocks two samples differ by half a gray level or more in the mean."""
    # The mean is rounded to whole gray levels, so that half of one is the limit.
    means = cv2.resize(cv2.absdiff(before, after), (_BLOCKS, _BLOCKS), interpolation=cv2.INTER_AREA)
    return cv2.countNonZero(means)
