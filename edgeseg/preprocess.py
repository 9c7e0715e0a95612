"""Frame to network input, network output to mask: the one definition, used by training, conversion and device alike."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Array, Box, Frame, Interpolation, Layout, Logits, Mask, Preprocess

_CV2_LARGEST_SIDE = 32766  # cv2.resize and cv2.remap index with int16
# So far below the largest logit that float32 still tells the two probabilities apart.
_NEAREST = np.float32(-1e-6)


class Scratch:
    """Memory that one caller uses again from frame to frame; made anew where a size changes. Not for two threads."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        """The array of that name and shape, with whatever is in it; a name is always of one dtype."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


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
    scratch: Scratch | None = None,
) -> Logits:
    """The network input for a frame: cut to its area, channels matched, resized, still in pixel values.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8, any size.
        preprocess: the network's size and channels; its mean and std are inside the graph and not applied here.
        layout: NCHW or NHWC.
        area: the part of the frame to look at; None for what `area_of` says.
        out: where to write the input, of the shape and dtype returned; None for new memory.
        scratch: for what lies between frame and input; None for new memory.

    Returns:
        [1, C, h, w] or [1, h, w, C] float32, 0..255, C-contiguous; `out` where that is given.

    Raises:
        BadInput: for a frame of another dtype or shape, or an area that is not inside it.
    """
    image = check_frame(frame)
    if area is None and preprocess.scan_area is not None:
        area = area_of(frame, preprocess)
    if area is not None:
        image = _cut(image, area)
    image = _resized(image, preprocess, scratch or Scratch())
    if out is None:
        height, width, channels = preprocess.height, preprocess.width, preprocess.channels
        planar = layout is Layout.NCHW
        out = np.empty((1, channels, height, width) if planar else (1, height, width, channels), np.float32)
    if preprocess.channels == 1:
        np.copyto(out.reshape(image.shape), image)
    else:
        _fill(out[0] if layout is Layout.NCHW else out[0].transpose(2, 0, 1), image)
    return out


def to_logit_maps(output: Array, layout: Layout = Layout.NCHW) -> Logits:
    """A session's output [1, C, h, w] or [1, h, w, C] as [h, w, C] float32; a view where the memory allows it.

    Raises:
        BadInput: for another rank or batch, or where a value is not finite.
    """
    if output.ndim != 4 or output.shape[0] != 1 or not output.size:
        raise BadInput(f"network output has shape {output.shape}, expected a 4-D tensor of batch 1")
    maps: Logits = output[0].astype(np.float32, copy=False)
    # The cheapest reduction that NaN and infinity of any element come out of: it sums in double precision.
    if not math.isfinite(cv2.sumElems(maps.reshape(-1, maps.shape[2]))[0]):
        raise BadInput("network output has values that are not finite (NaN or infinity)")
    return maps.transpose(1, 2, 0) if layout is Layout.NCHW else maps


def to_mask(
    output: Array,
    frame_shape: tuple[int, ...],
    layout: Layout = Layout.NCHW,
    *,
    area: Box | None = None,
    scratch: Scratch | None = None,
) -> Mask:
    """Class indices at the frame's own size.

    The logits are resized (bilinear) and then decided: one channel against 0, which is a sigmoid against one half;
    several by their largest. Resizing logits instead of masks keeps outlines smooth.

    Args:
        output: logits [1, C, h, w] or [1, h, w, C], any float dtype; h, w may be smaller than the network input.
        frame_shape: the frame's shape; its first two entries are H, W.
        layout: of `output`.
        area: where the network looked; None for the whole frame.
        scratch: for the resized logits; None for new memory.

    Returns:
        [H, W] uint8, new memory; 0 is the background, which is everything outside the area.

    Raises:
        BadInput: for an output that is not 4-D, has a batch above 1 or is not finite.
    """
    maps = to_logit_maps(output, layout)
    if area is None:
        mask: Mask = np.empty(frame_shape[:2], np.uint8)
        _decide(maps, mask, scratch or Scratch())
    else:
        mask = np.zeros(frame_shape[:2], np.uint8)
        _decide(maps, _cut(mask, area), scratch or Scratch())
    return mask


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
        confidence[0] = 1
        inside = _cut(confidence.transpose(1, 2, 0), area).transpose(2, 0, 1)
        inside[0] = 0
    for index in range(maps.shape[2]):
        _resize(maps[:, :, index], inside[index + single])
    inside -= inside.max(0)
    np.minimum(inside, _NEAREST, out=inside, where=inside < 0)
    np.exp(inside, out=inside)
    inside /= inside.sum(0)
    return confidence


def _cut(image: Array, area: Box) -> Array:
    """That part of an image [H, W, ...], a view."""
    height, width = image.shape[:2]
    right, bottom = area.left + area.width, area.top + area.height
    if min(area.left, area.top) < 0 or min(area.width, area.height) < 1 or right > width or bottom > height:
        raise BadInput(f"area is {area}, expected a box of at least one pixel inside the frame of {width} x {height}")
    return image[area.top : bottom, area.left : right]


def _resized(image: Array, preprocess: Preprocess, scratch: Scratch) -> Array:
    """[h, w], or [h, w, 3] where the network and the frame have colours."""
    size = (preprocess.width, preprocess.height)
    # Colour goes before the resize where that drops channels: less to resize.
    if image.ndim == 3 and preprocess.channels == 1:
        gray = scratch.take("gray", image.shape[:2], np.uint8)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY, dst=gray)
    if image.shape[1::-1] != size:
        small = scratch.take("small", (*size[::-1], *image.shape[2:]), np.uint8)
        way = cv2.INTER_AREA if preprocess.interpolation is Interpolation.AREA else cv2.INTER_LINEAR
        image = cv2.resize(image, size, dst=small, interpolation=way)
    return image


def _fill(planes: Array, image: Array) -> None:
    """Write an image, [h, w] or [h, w, 3], into planes [C, h, w]; a gray one into each of them."""
    if image.ndim == 3 and planes.flags.c_contiguous:
        # Three copies of whole planes take a third of the time of one that gathers every third byte.
        for plane, channel in zip(planes, cv2.split(image), strict=True):
            np.copyto(plane, channel)
    else:
        np.copyto(planes, image if image.ndim == 2 else image.transpose(2, 0, 1))


def _decide(maps: Logits, mask: Mask, scratch: Scratch) -> None:
    """Write the class of every pixel into a mask of any size."""
    size, channels = mask.shape, maps.shape[2]
    first = min(channels - 1, 1)  # one channel is that of class 1, and the background has 0
    best = _at_size(maps[:, :, 0], size, scratch, "first") if first else 0
    # One channel at a time: an argmax over all would need C planes of the frame's size at once.
    for index in range(first, channels):
        plane = _at_size(maps[:, :, index], size, scratch, "next")
        if index == first:
            np.greater(plane, best, out=mask.view(np.bool_))
        else:
            better = np.greater(plane, best, out=scratch.take("better", size, np.bool_))
            np.copyto(mask, np.uint8(index), where=better)
        if index + 1 < channels:
            best = np.maximum(best, plane, out=scratch.take("best", size, np.float32))


def _at_size(plane: Logits, size: tuple[int, ...], scratch: Scratch, name: str) -> Logits:
    """The plane itself where it has that size, else resized."""
    return plane if plane.shape == size else _resize(plane, scratch.take(name, size, np.float32))


def _resize(plane: Logits, out: Logits) -> Logits:
    """Write a plane into another of any size."""
    if plane.shape == out.shape:
        np.copyto(out, plane)
        return out
    if not plane.flags.c_contiguous:
        plane = plane.copy()
    return cv2.resize(plane, out.shape[::-1], dst=out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
