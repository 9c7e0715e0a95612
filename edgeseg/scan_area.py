"""The scan area: which rectangle of a frame the network sees, fixed as shares or found in the picture.

The detection is edgeseg's own and classical. An ultrasound field is a dense patch of speckle: nearly every pixel is
lit, and neighbours differ. Text, rulers and callipers are lit but thin, panels and redaction boxes are flat, buttons
are coloured. So the field is what stays of the lit, uneven, gray places after everything thinner than a few hundredths
of the frame is removed; its box is widened to both sides alike, because one flank of a sector often lies in shadow. The
working picture has at most 256 pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Array, Box, Frame, Mask, ScanArea

_ROUNDING = 1e-9  # 0.1 + 0.9 and the like may come out a little above 1

_WORKING_SIDE = 256
_SMALLEST_SIDE = 32  # of the working picture: nothing can be told apart in less
_FLAT = 2  # gray levels between the neighbours of a pixel
_COLOURFUL = 40  # difference of the channels: gray pictures have a little of it from their compression
_DENSE = 0.6  # share of lit pixels around a place; of text it is below one half
_DENSE_WINDOW = 7
_THIN = 9  # working pixels: text lines, rulers, scales, the frames of panels
_REGROWN = 3  # times _THIN // 2 pixels: the corners that were removed with what is thin
_PART_SHARE, _PART_SHORT_SIDE = 0.15, 0.35  # of the largest part: what is less is a tool bar, not a second field
_SMALLEST_SHARE = 0.12  # of the frame: a smaller box is no field, or a fraction of one
_TOP = 0.15  # of the box's height: the rows that tell where the probe's face is

_SETTLED = 8
_RETRY = 15


def find_area(frame: Array, scan_area: ScanArea) -> Box:
    """The scan area of a frame in whole pixels: never empty, inside the frame.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8, as `preprocess.check_frame` lets it pass.
        scan_area: fixed shares of the frame, or that the area is to be looked for.

    Returns:
        The area; the whole frame where none was found.

    Raises:
        BadInput: for shares that are no part of a frame.
    """
    if scan_area.detect:
        return detect(frame) or whole(frame)
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


def detect(frame: Array) -> Box | None:
    """The box of the ultrasound field in a frame; None where nothing looks like one.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8. Equal frames give equal boxes.
    """
    height, width = frame.shape[:2]
    factor = max(1, -(-max(height, width) // _WORKING_SIDE))
    if min(height, width) // factor < _SMALLEST_SIDE:
        return None
    field = _largest_parts(_dense(frame, factor))
    if field is None:
        return None
    left, right = _widened(field)
    _, top, _, rows = cv2.boundingRect(field)
    # One working pixel around it: the density at an edge is one half.
    x0, x1 = _in_frame(left - 1, right + 1, factor, width)
    y0, y1 = _in_frame(top - 1, top + rows + 1, factor, height)
    return Box(x0, y0, x1 - x0, y1 - y0)


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
            BadInput: for shares that are no part of a frame.
        """
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
        if found := detect(frame):
            self._found.append(_around((*self._found[-1:], found)))


def _dense(frame: Frame, factor: int) -> Mask:
    """Places where most pixels are lit, uneven and gray: [H // factor, W // factor], 0 or 1."""
    # Every second pixel is enough to tell a share by, and a quarter of the work.
    step = factor // 2 if factor % 2 == 0 else factor
    rest = factor // step
    size = (frame.shape[1] // factor, frame.shape[0] // factor)
    rows = frame[: size[1] * factor : step, : size[0] * factor]
    gray = rows if rows.ndim == 2 else np.asarray(cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY))
    gray = np.ascontiguousarray(gray[:, ::step])
    lit = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY)[1]
    lit, small = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (lit, gray))
    relief = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    lit[relief < _FLAT] = 0
    if rows.ndim == 3:
        lit[_colour(rows[::rest, ::factor]) > _COLOURFUL] = 0
    share = cv2.blur(lit, (_DENSE_WINDOW, _DENSE_WINDOW), borderType=cv2.BORDER_REPLICATE)
    return (share > _DENSE * 255).view(np.uint8)


def _colour(image: Frame) -> Mask:
    red, green, blue = cv2.split(np.ascontiguousarray(image))
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return cv2.subtract(most, least)  # type: ignore[return-value]


def _largest_parts(dense: Mask) -> Mask | None:
    """The largest patch without what is thin, others of its kind, and the corners that belong to them."""
    kernel = np.ones((_THIN, _THIN), np.uint8)
    thick = cv2.morphologyEx(dense, cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(thick, connectivity=8)
    if count < 2:
        return None
    areas, short_sides = stats[:, cv2.CC_STAT_AREA], stats[:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_HEIGHT + 1].min(axis=1)
    areas[0] = 0  # the background
    largest = int(areas.argmax())
    kept = (areas >= _PART_SHARE * areas[largest]) & (short_sides >= _PART_SHORT_SIDE * short_sides[largest])
    field: Mask = kept.astype(np.uint8)[labels]
    for _ in range(_REGROWN):
        field = cv2.bitwise_and(cv2.dilate(field, kernel), dense)  # type: ignore[assignment]
    _, _, columns, rows = cv2.boundingRect(field)
    return field if columns * rows >= _SMALLEST_SHARE * field.size else None


def _widened(field: Mask) -> tuple[int, int]:
    """Left and right edge of the field, made symmetrical about the middle of its top: the face of the probe."""
    left, top, columns, rows = cv2.boundingRect(field)
    face = field[top : top + max(1, int(_TOP * rows)), left : left + columns]
    face = face[face.any(axis=1)]
    ends = face.argmax(axis=1) + columns - face[:, ::-1].argmax(axis=1)
    axis = left + float(np.median(ends)) / 2
    half = max(axis - left, left + columns - axis)
    return math.floor(axis - half), math.ceil(axis + half)


def _in_frame(low: int, high: int, factor: int, pixels: int) -> tuple[int, int]:
    """Working pixels as pixels of the frame; an edge close to the frame's is the frame's."""
    close = 2 * factor
    low, high = low * factor, high * factor
    return (0 if low <= close else low), (pixels if high >= pixels - close else high)


def _around(boxes: Iterable[Box]) -> Box:
    edges = [(b.left, b.top, b.left + b.width, b.top + b.height) for b in boxes]
    left, top = (min(e[i] for e in edges) for i in (0, 1))
    right, bottom = (max(e[i] for e in edges) for i in (2, 3))
    return Box(left, top, right - left, bottom - top)


def _edges(start: float, size: float, pixels: int) -> tuple[int, int]:
    low = min(math.floor(start * pixels + 0.5), pixels - 1)
    high = min(math.floor((start + size) * pixels + 0.5), pixels)
    return low, max(high, low + 1)
