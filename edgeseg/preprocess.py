"""Frame to network input, network output to mask: the one definition, used by training, conversion and device alike."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.resize import OPENCV_IS_EXACT, resizer
from edgeseg.ties import settle
from edgeseg.types import Array, Box, Frame, Layout, Logits, Mask, Preprocess

_CV2_LARGEST_SIDE = 32766  # cv2.resize and cv2.remap index with int16
# So far below the largest logit that float32 still tells the two probabilities apart.
_NEAREST = np.float32(-1e-6)
_ZERO = np.float32(0)


def check_frame(frame: Array) -> Frame:
    """Return the frame unchanged if it is [H, W] or [H, W, 3] uint8 with H, W >= 1; raise BadInput otherwise."""
    if not isinstance(frame, np.ndarray):
        raise BadInput(f"frame is a {type(frame).__name__}, expected a numpy array [H, W] or [H, W, 3] uint8")
    if frame.dtype != np.uint8:
        raise BadInput(f"frame has dtype {frame.dtype}, expected uint8; scale it to 0..255 and convert it first")
    shape = frame.shape
    if len(shape) != 2 and (len(shape) != 3 or shape[2] != 3):
        raise BadInput(f"frame has shape {shape}, expected [H, W] (gray) or [H, W, 3] (RGB)")
    if not (0 < shape[0] <= _CV2_LARGEST_SIDE and 0 < shape[1] <= _CV2_LARGEST_SIDE):
        raise BadInput(f"frame has shape {shape}, expected sides of 1 to {_CV2_LARGEST_SIDE} pixels")
    return frame


def area_of(frame: Array, preprocess: Preprocess) -> Box | None:
    """Where in a frame the network looks; None for all of it.

    Raises:
        BadInput: for a frame of another dtype or shape, or a scan area that is no part of a frame.
    """
    if preprocess.scan_area is None:
        return None
    from edgeseg.scan_area import find_area

    return find_area(check_frame(frame), preprocess.scan_area)


def to_input(
    frame: Array,
    preprocess: Preprocess,
    layout: Layout = Layout.NCHW,
    *,
    area: Box | None = None,
    out: Logits | None = None,
) -> Logits:
    """The network input for a frame: cut to its area, channels matched, resized, still in pixel values.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8, any size.
        preprocess: the network's size and channels; its mean and std are inside the graph and not applied here.
        layout: NCHW or NHWC.
        area: the part of the frame to look at; None for what `area_of` says.
        out: where to write the input, of the shape and dtype returned; None for new memory.

    Returns:
        [1, C, h, w] or [1, h, w, C] float32, 0..255, C-contiguous; `out` where that is given.

    Raises:
        BadInput: for a frame of another dtype or shape, or an area that is not inside it.
    """
    check_frame(frame)
    if area is None:
        area = area_of(frame, preprocess)
    return InputPlan(frame.shape, preprocess, layout, area, out)(frame)


class InputPlan:
    """`to_input` for frames of one shape and area: what does not depend on pixels is done once, memory is used again.

    Args:
        shape: of the frames, [H, W] or [H, W, 3].
        preprocess, layout, area, out: as for `to_input`, but that no area is all of the frame.

    Raises:
        BadInput: for an area that is not inside the frames.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        preprocess: Preprocess,
        layout: Layout = Layout.NCHW,
        area: Box | None = None,
        out: Logits | None = None,
    ) -> None:
        height, width, channels = preprocess.height, preprocess.width, preprocess.channels
        planar = layout is Layout.NCHW
        if out is None:
            out = np.empty((1, channels, height, width) if planar else (1, height, width, channels), np.float32)
        self.out = out
        self._part = None if area is None else _part(area, shape)
        part = shape[:2] if area is None else (area.height, area.width)
        colours = shape[2:] if channels == 3 else ()
        # Colour goes before the resize where that drops channels, and gray is spread after it: less to resize.
        self._gray = np.empty(part, np.uint8) if len(shape) > 2 and not colours else None
        self._small = None if part == (height, width) else np.empty((height, width, *colours), np.uint8)
        self._resize = resizer((width, height), preprocess.interpolation, self._small)
        planes: Array = out[0] if planar else out[0].transpose(2, 0, 1)
        self._place = out[0] if colours and not planar else planes if channels == 3 else planes[0]
        # Three copies of whole planes take a third of the time of one that gathers every third byte.
        self._channels = [np.empty((height, width), np.uint8) for _ in range(3)] if colours and planar else None

    def __call__(self, frame: Frame) -> Logits:
        """The network input of a frame, which has to be of that shape; the next call writes over it."""
        image: Array = frame if self._part is None else frame[self._part]
        if self._gray is not None:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY, dst=self._gray)
        if self._small is not None:
            image = self._resize(image)
        if self._channels is None:
            np.copyto(self._place, image)
        else:
            for plane, channel in zip(self._place, cv2.split(image, self._channels), strict=True):
                np.copyto(plane, channel)
        return self.out


def to_mask(
    output: Array, frame_shape: tuple[int, ...], layout: Layout = Layout.NCHW, *, area: Box | None = None
) -> Mask:
    """Class indices at the frame's own size.

    The logits are resized (bilinear) and then decided: one channel against 0, which is a sigmoid against one half;
    several by their largest. Resizing logits instead of masks keeps outlines smooth.

    Args:
        output: logits [1, C, h, w] or [1, h, w, C], any float dtype; h, w may be smaller than the network input.
        frame_shape: the frame's shape; its first two entries are H, W.
        layout: of `output`.
        area: where the network looked; None for the whole frame.

    Returns:
        [H, W] uint8; 0 is the background, which is everything outside the area.

    Raises:
        BadInput: for an output that is not 4-D, has a batch above 1 or is not finite, or an area outside the frame.
    """
    return MaskPlan(frame_shape, layout, area)(output)


class MaskPlan:
    """`to_mask` for frames of one shape and area: memory is used again, but for the masks.

    Args:
        frame_shape, layout, area: as for `to_mask`.

    Raises:
        BadInput: for an area that is not inside the frames.
    """

    def __init__(self, frame_shape: tuple[int, ...], layout: Layout = Layout.NCHW, area: Box | None = None) -> None:
        self._layout = layout
        self._frame = frame_shape[:2]
        self._part = None if area is None else _part(area, frame_shape)
        self._shape = self._frame if area is None else (area.height, area.width)
        self._size = self._shape[::-1]
        self._memory: dict[str, Array] = {}

    def __call__(self, output: Array) -> Mask:
        """The mask of an output, new memory; raises BadInput as `to_mask`."""
        maps = to_logit_maps(output, self._layout)
        if self._part is None:
            mask = whole = np.empty(self._frame, np.uint8)
        else:
            whole = np.zeros(self._frame, np.uint8)
            mask = whole[self._part]
        if maps.shape[2] == 1:
            np.greater(self._resized(maps[:, :, 0], "best"), _ZERO, out=mask.view(np.bool_))
        else:
            self._decide(maps, mask)
        if not OPENCV_IS_EXACT:
            settle(mask, maps)
        return whole

    def _decide(self, maps: Logits, mask: Mask) -> None:
        """Write the class of every pixel of the area."""
        best, last = self._resized(maps[:, :, 0], "best"), maps.shape[2] - 1
        # One channel at a time: an argmax over all would need C planes of the frame's size at once.
        for index in range(1, last + 1):
            plane = self._resized(maps[:, :, index], "next")
            if index == 1:
                np.greater(plane, best, out=mask.view(np.bool_))
            else:
                better = np.greater(plane, best, out=self._take("better", np.bool_))
                np.copyto(mask, np.uint8(index), where=better)
            if index < last:
                best = np.maximum(best, plane, out=self._take("largest", np.float32))

    def _resized(self, plane: Logits, name: str) -> Logits:
        if plane.shape == self._shape:
            return plane
        return _resize(plane, self._size, self._take(name, np.float32))

    def _take(self, name: str, dtype: type[np.generic]) -> Array:
        array = self._memory.get(name)
        if array is None:
            array = self._memory[name] = np.empty(self._shape, dtype)
        return array


def to_logit_maps(output: Array, layout: Layout = Layout.NCHW) -> Logits:
    """A session's output [1, C, h, w] or [1, h, w, C] as [h, w, C] float32; a view where the memory allows it.

    Raises:
        BadInput: for another rank or batch, or where a value is not finite.
    """
    if output.ndim != 4 or output.shape[0] != 1 or not output.size:
        raise BadInput(f"network output has shape {output.shape}, expected a 4-D tensor of batch 1")
    maps: Logits = output[0].astype(np.float32, copy=False)
    # The cheapest reduction that NaN and infinity of any element come out of: it sums in double precision.
    # Long rows: it takes ten times as long for a matrix of one column.
    if not math.isfinite(cv2.sumElems(maps.reshape(maps.shape[0], -1))[0]):
        raise BadInput("network output has values that are not finite (NaN or infinity)")
    return maps.transpose(1, 2, 0) if layout is Layout.NCHW else maps


def to_confidence(
    output: Array, frame_shape: tuple[int, ...], layout: Layout = Layout.NCHW, *, area: Box | None = None
) -> Logits:
    """The probability of every class at the frame's own size: the softmax of the resized logits.

    One channel is the logit of class 1 against the background's 0, so that its probability is the sigmoid.

    Args:
        output, frame_shape, layout, area: as for `to_mask`.

    Returns:
        [K, H, W] float32, K >= 2 classes with the background first; a pixel's sum is 1 and its largest is the class
        that `to_mask` gives. Outside the area the background has 1.

    Raises:
        BadInput: as `to_mask`.
    """
    maps = to_logit_maps(output, layout)
    single = maps.shape[2] == 1
    confidence = np.zeros((maps.shape[2] + single, *frame_shape[:2]), np.float32)
    inside = confidence
    if area is not None:
        rows, columns = _part(area, frame_shape)
        confidence[0] = 1
        inside = confidence[:, rows, columns]
        inside[0] = 0
    size = inside.shape[:0:-1]
    for index in range(maps.shape[2]):
        plane = maps[:, :, index]
        np.copyto(inside[index + single], plane if plane.shape == size[::-1] else _resize(plane, size))
    inside -= inside.max(0)
    np.minimum(inside, _NEAREST, out=inside, where=inside < 0)
    np.exp(inside, out=inside)
    inside /= inside.sum(0)
    return confidence


def _part(area: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of an area in a frame."""
    height, width = shape[:2]
    right, bottom = area.left + area.width, area.top + area.height
    if min(area.left, area.top) < 0 or min(area.width, area.height) < 1 or right > width or bottom > height:
        raise BadInput(f"area is {area}, expected a box of at least one pixel inside the frame of {width} x {height}")
    return slice(area.top, bottom), slice(area.left, right)


def _resize(plane: Logits, size: tuple[int, ...], out: Logits | None = None) -> Logits:
    if not plane.flags.c_contiguous:
        plane = plane.copy()
    return cv2.resize(plane, size, dst=out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
