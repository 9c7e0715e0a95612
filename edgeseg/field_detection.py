"""The ultrasound field in a picture with text, rulers, panels and redaction boxes around it.

The detection is edgeseg's own and classical. An ultrasound field is a dense patch of speckle: nearly every pixel is
lit, and neighbours differ. Text, rulers and callipers are lit but thin, panels and redaction boxes are flat, buttons
are coloured. So the field is what stays of the lit, uneven, gray places after everything thinner than a few hundredths
of the frame is removed. Its box is widened by what is dimly lit beside it, because one flank of a sector often lies in
shadow. The working picture has at most 256 pixels a side.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgeseg.types import Array, Box, Frame, Mask

_WORKING_SIDE = 256
_SMALLEST_SIDE = 32  # of the working picture: nothing can be told apart in less
_FLAT = 2  # gray levels between the neighbours of a pixel
_COLOURFUL = 40  # difference of the channels: gray pictures have a little of it from their compression
_DENSE = 0.6  # share of lit pixels around a place; of text it is below one half
_DIM = 0.25  # the same in the shadow of a bone or of bad contact
_WINDOW = 7
_THIN = 9  # working pixels: text lines, rulers, scales, the frames of panels
_REGROWN = 3  # times _THIN // 2 pixels: the corners that were removed with what is thin
_PART_SHARE, _PART_SHORT_SIDE = 0.15, 0.35  # of the largest part: what is less is a tool bar, not a second field
_SMALLEST_SHARE = 0.12  # of the frame: a smaller box is no field, or a fraction of one
_FLANK = 0.05  # of the box's height: how much of a column is lit in a flank
_TOP = 0.15  # of the box's height: the rows that tell where the probe's face is


def detect(frame: Array) -> Box | None:
    """The box of the ultrasound field in a frame; None where nothing looks like one.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8. Equal frames give equal boxes.
    """
    height, width = frame.shape[:2]
    factor = max(1, -(-max(height, width) // _WORKING_SIDE))
    if min(height, width) // factor < _SMALLEST_SIDE:
        return None
    share = _lit_share(frame, factor)
    field = _largest_parts((share > _DENSE * 255).view(np.uint8))
    if field is None:
        return None
    left, right = _widened(field, share > _DIM * 255)
    _, top, _, rows = cv2.boundingRect(field)
    # One working pixel around it: the density at an edge is one half.
    x0, x1 = _in_frame(left - 1, right + 1, factor, width)
    y0, y1 = _in_frame(top - 1, top + rows + 1, factor, height)
    return Box(x0, y0, x1 - x0, y1 - y0)


def _lit_share(frame: Frame, factor: int) -> Mask:
    """Share of pixels around each place that are lit, uneven and gray: [H // factor, W // factor], 0 to 255."""
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
    return cv2.blur(lit, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


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


def _widened(field: Mask, dim: Array) -> tuple[int, int]:
    """Left and right edge of the field with its flank in shadow, if it has one.

    A field is symmetrical about the middle of its top, the face of the probe: what is dimly lit there up to the mirror
    image of the other edge belongs to it.
    """
    left, top, columns, rows = cv2.boundingRect(field)
    face = field[top : top + max(1, int(_TOP * rows)), left : left + columns]
    face = face[face.any(axis=1)]
    ends = face.argmax(axis=1) + columns - face[:, ::-1].argmax(axis=1)
    axis = left + float(np.median(ends)) / 2
    half = max(axis - left, left + columns - axis)
    start = max(0, math.floor(axis - half))
    band = dim[top : top + rows, start : math.ceil(axis + half)]
    (lit,) = np.nonzero(np.count_nonzero(band, axis=0) >= _FLANK * rows)
    return min(left, start + int(lit[0])), max(left + columns, start + int(lit[-1]) + 1)


def _in_frame(low: int, high: int, factor: int, pixels: int) -> tuple[int, int]:
    """Working pixels as pixels of the frame; an edge close to the frame's is the frame's."""
    close = 2 * factor
    low, high = low * factor, high * factor
    return (0 if low <= close else low), (pixels if high >= pixels - close else high)
