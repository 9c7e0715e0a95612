"""The scan area: which rectangle of a frame the network sees, fixed as shares or found in the picture."""

from __future__ import annotations

import math

from edgeseg.errors import BadInput
from edgeseg.types import Array, Box, ScanArea

_ROUNDING = 1e-9  # 0.1 + 0.9 and the like may come out a little above 1


def find_area(frame: Array, scan_area: ScanArea) -> Box:
    """The scan area of a frame in whole pixels: never empty, inside the frame.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8.
        scan_area: fixed shares of the frame, or that the area is to be looked for.

    Raises:
        BadInput: for shares that are no part of a frame.
    """
    if scan_area.detect:
        return whole(frame)
    return fixed_area(frame.shape, scan_area)


def whole(frame: Array) -> Box:
    """All of the frame."""
    return Box(0, 0, frame.shape[1], frame.shape[0])


def fixed_area(frame_shape: tuple[int, ...], scan_area: ScanArea) -> Box:
    """The fixed shares in whole pixels of a frame of that shape [H, W, ...].

    Both edges are rounded to the nearest pixel, halves up: `floor(share * size + 0.5)`, the right edge from
    `left + width`. An area that would have no pixels then has one.

    Raises:
        BadInput: for shares that are no part of a frame.
    """
    check_shares(scan_area)
    height, width = frame_shape[:2]
    left, right = _edges(scan_area.left, scan_area.width, width)
    top, bottom = _edges(scan_area.top, scan_area.height, height)
    return Box(left, top, right - left, bottom - top)


def check_shares(scan_area: ScanArea) -> None:
    """Raise BadInput where the shares are no part of a frame: outside 0 to 1, or without width or height."""
    for edge, start, size in (
        ("left + width", scan_area.left, scan_area.width),
        ("top + height", scan_area.top, scan_area.height),
    ):
        # A NaN fails every comparison, so what is asked is what must hold.
        if not (0 <= start < 1 and 0 < size <= 1 and start + size <= 1 + _ROUNDING):
            raise BadInput(
                f"scan area has {edge} = {start} + {size}, expected shares of the frame: a start of 0 or more, a size "
                "above 0 and a sum of at most 1"
            )


def _edges(start: float, size: float, pixels: int) -> tuple[int, int]:
    low = min(math.floor(start * pixels + 0.5), pixels - 1)
    high = min(math.floor((start + size) * pixels + 0.5), pixels)
    return low, max(high, low + 1)
