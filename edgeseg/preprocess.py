"""Frame to network input, network output to mask: the one definition, used by training, conversion and device alike."""

from __future__ import annotations

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Array, Frame, Interpolation, Layout, Logits, Mask, Preprocess

_CV2_INTERPOLATION = {Interpolation.LINEAR: cv2.INTER_LINEAR, Interpolation.AREA: cv2.INTER_AREA}
_CV2_LARGEST_SIDE = 32766  # cv2.resize and cv2.remap index with int16


def check_frame(frame: Array) -> Frame:
    """Return the frame unchanged if it is [H, W] or [H, W, 3] uint8 with H, W >= 1; raise BadInput otherwise."""
    if not isinstance(frame, np.ndarray):
        raise BadInput(f"frame is a {type(frame).__name__}, expected a numpy array [H, W] or [H, W, 3] uint8")
    if frame.dtype != np.uint8:
        raise BadInput(f"frame has dtype {frame.dtype}, expected uint8; scale it to 0..255 and convert it first")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise BadInput(f"frame has shape {frame.shape}, expected [H, W] (gray) or [H, W, 3] (RGB)")
    if 0 in frame.shape or max(frame.shape[:2]) > _CV2_LARGEST_SIDE:
        raise BadInput(f"frame has shape {frame.shape}, expected sides of 1 to {_CV2_LARGEST_SIDE} pixels")
    return frame


def to_input(frame: Array, preprocess: Preprocess, layout: Layout = Layout.NCHW) -> Logits:
    """The network input for a frame: channels matched, resized, still in pixel values.

    Args:
        frame: [H, W] gray or [H, W, 3] RGB, uint8, any size.
        preprocess: the network's size and channels; its mean and std are inside the graph and not applied here.
        layout: NCHW or NHWC.

    Returns:
        [1, C, h, w] or [1, h, w, C] float32, 0..255, C-contiguous.

    Raises:
        BadInput: for a frame of another dtype or shape.
    """
    image = check_frame(frame)
    size = (preprocess.width, preprocess.height)
    # Colour goes before the resize where that drops channels, after it where it adds some: less to resize either way.
    if image.ndim == 3 and preprocess.channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # type: ignore[assignment]
    if image.shape[1::-1] != size:
        image = cv2.resize(image, size, interpolation=_CV2_INTERPOLATION[preprocess.interpolation])  # type: ignore[assignment]
    if image.ndim == 2 and preprocess.channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
    pixels = image.astype(np.float32)
    if pixels.ndim == 2:
        return pixels[None, None] if layout is Layout.NCHW else pixels[None, :, :, None]
    if layout is Layout.NCHW:
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    return pixels[None]


def to_logit_maps(output: Array, layout: Layout = Layout.NCHW) -> Logits:
    """A session's output [1, C, h, w] or [1, h, w, C] as [h, w, C] float32; a view where the memory allows it.

    Raises:
        BadInput: for another rank or batch, or where a value is not finite.
    """
    if output.ndim != 4 or output.shape[0] != 1:
        raise BadInput(f"network output has shape {output.shape}, expected a 4-D tensor of batch 1")
    maps: Logits = output[0].astype(np.float32, copy=False)
    if layout is Layout.NCHW:
        maps = maps.transpose(1, 2, 0)
    # min + max is one cheap reduction each and turns NaN or infinity of any element into a non-finite sum.
    if not np.isfinite(maps.min() + maps.max()):
        raise BadInput("network output has values that are not finite (NaN or infinity)")
    return maps


def to_mask(output: Array, frame_shape: tuple[int, ...], layout: Layout = Layout.NCHW) -> Mask:
    """Class indices at the frame's own size.

    The logits are resized (bilinear) and then decided: one channel against 0, which is a sigmoid against one half;
    several by their largest. Resizing logits instead of masks keeps outlines smooth.

    Args:
        output: logits [1, C, h, w] or [1, h, w, C], any float dtype; h, w may be smaller than the network input.
        frame_shape: the frame's shape; its first two entries are H, W.
        layout: of `output`.

    Returns:
        [H, W] uint8; 0 is the background.

    Raises:
        BadInput: for an output that is not 4-D, has a batch above 1 or is not finite.
    """
    maps = to_logit_maps(output, layout)
    height, width = frame_shape[:2]
    channels = maps.shape[2]
    if channels == 1:
        plane = _resize(np.ascontiguousarray(maps[:, :, 0]), width, height)
        return (plane > 0).view(np.uint8)
    best = _resize(np.ascontiguousarray(maps[:, :, 0]), width, height)
    classes: Mask = np.zeros((height, width), np.uint8)
    # One channel at a time: an argmax over all would need C planes of the frame's size at once.
    for index in range(1, channels):
        plane = _resize(np.ascontiguousarray(maps[:, :, index]), width, height)
        classes[plane > best] = index
        best = np.maximum(best, plane)  # not in place: the first plane may be the caller's memory
    return classes


def _resize(plane: Logits, width: int, height: int) -> Logits:
    if plane.shape == (height, width):
        return plane
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
