"""The scan area: which rectangle of a frame the network sees, fixed as shares or found in the picture."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgeseg.errors import BadInput
from edgeseg.types import Array, Box, Frame, Preprocess, ScanArea

_ROUNDING = 1e-9  # 0.1 + 0.9 and the like may come out a little above 1

_SETTLED = 8
_RETRY = 15


def find_area(frame: Array, scan_area: ScanArea) -> Box:
    """The scan area of a frame in whole pixels: never empty, inside the frame.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8.
        scan_area: fixed shares of the frame, or that the area is to be looked for.

    Returns:
        The area; the whole frame where none was found.

    Raises:
        BadInput: for a frame of another dtype or shape, or shares that are no part of a frame.
    """
    _check(frame)
    if scan_area.detect:
        return _detect(frame) or whole(frame)
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


def describe(scan_area: ScanArea) -> str:
    """For people."""
    if scan_area.detect:
        return "found in the picture"
    a = scan_area
    return f"left {a.left:g}, top {a.top:g}, width {a.width:g}, height {a.height:g} of the frame"


def cut(image: Array, area: Box | None) -> Array:
    """That part of an image [H, W, ...], a view; all of it for None."""
    if area is None:
        return image
    return image[area.top : area.top + area.height, area.left : area.left + area.width]


class AreaTracker:
    """Holds the scan area of a stream still: an area that moved with every frame would move the masks.

    A detected area is the smallest box around what was found in the first eight frames that had a field, and is kept
    from then on; a frame of another size starts anew, and so does `reset` (after a change of the depth or the probe).
    """

    def __init__(self, scan_area: ScanArea) -> None:
        self._scan_area = scan_area
        self._shape: tuple[int, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Look for the area anew from the next frame on."""
        self._found: list[Box] = []
        self._seen = 0

    def area(self, frame: Frame) -> Box:
        """The area of the next frame of the stream; the whole frame as long as no field was found.

        Raises:
            BadInput: as `find_area`.
        """
        _check(frame)
        if not self._scan_area.detect:
            return fixed_area(frame.shape, self._scan_area)
        if frame.shape[:2] != self._shape:
            self._shape = frame.shape[:2]
            self.reset()
        # A picture without a field is looked at now and then only: each look costs about a millisecond.
        if len(self._found) < _SETTLED and (self._found or self._seen % _RETRY == 0):
            self._look(frame)
        self._seen += 1
        return self._found[-1] if self._found else whole(frame)

    def _look(self, frame: Frame) -> None:
        if found := _detect(frame):
            self._found.append(_around((*self._found[-1:], found)))


def tracker(preprocess: Preprocess) -> AreaTracker | None:
    """What holds the area of a stream, clip or cine still; None where a bundle does not look for it in the picture."""
    scan_area = preprocess.scan_area
    return AreaTracker(scan_area) if scan_area is not None and scan_area.detect else None


# Imported in these: OpenCV costs 45 ms and 20 MB, which a check of a manifest need not pay.


def _check(frame: Array) -> None:
    from edgeseg.preprocess import check_frame

    check_frame(frame)


def _detect(frame: Array) -> Box | None:
    from edgeseg.field_detection import detect

    return detect(frame)


def _around(boxes: Iterable[Box]) -> Box:
    edges = [(b.left, b.top, b.left + b.width, b.top + b.height) for b in boxes]
    left, top = (min(e[i] for e in edges) for i in (0, 1))
    right, bottom = (max(e[i] for e in edges) for i in (2, 3))
    return Box(left, top, right - left, bottom - top)


def _edges(start: float, size: float, pixels: int) -> tuple[int, int]:
    low = min(math.floor(start * pixels + 0.5), pixels - 1)
    high = min(math.floor((start + size) * pixels + 0.5), pixels)
    return low, max(high, low + 1)
