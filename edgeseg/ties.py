"""Pixels whose classes are as good as equal, decided as docs/preprocess.md defines it.

OpenCV resizes floats with another last bit on ARM than on x86-64. Only a pixel on the very edge between two classes can
tell; int8 networks, whose logits are few different values, have some. There the definition is computed by itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.types import Array, Logits, Mask

# Of the largest logit: what rounding can do to a value, and to a position for every pixel of a side, with a margin.
_ROUNDING = 2.0**-22


def settle(mask: Mask, maps: Logits) -> None:
    """Correct a mask where rounding may have decided.

    Args:
        mask: [H, W] uint8, as the resized logits were decided; changed in place.
        maps: [h, w, C] float32, the logits.
    """
    if maps.shape[:2] == mask.shape:
        return
    rows, columns = np.divmod(_close(maps, mask.shape), mask.shape[1])
    if len(rows):
        values = resized_at(maps, mask.shape, rows, columns)
        mask[rows, columns] = values[:, 0] > 0 if values.shape[1] == 1 else values.argmax(1)


def resized_at(maps: Logits, size: tuple[int, ...], rows: Array, columns: Array) -> Logits:
    """Logits at some pixels of a resize, [n, C] float32: half-pixel centres, each step rounded once, columns first.

    Args:
        maps: [h, w, C] float32.
        size: height and width of the result.
        rows, columns: [n] indices into the result.
    """
    upper, lower, down = _taps(maps.shape[0], size[0], rows)
    left, right, across = _taps(maps.shape[1], size[1], columns)
    above = _between(maps[upper, left], maps[upper, right], across)
    below = _between(maps[lower, left], maps[lower, right], across)
    return _between(above, below, down)


def _close(maps: Logits, size: tuple[int, ...]) -> NDArray[np.intp]:
    """Flat indices of the pixels that rounding may decide."""
    limit = _ROUNDING * (8 + max(maps.shape[:2])) * float(np.abs(maps).max())
    planes = (_plane(maps, index, size) for index in range(maps.shape[2]))
    best = next(planes)
    second: Array = np.zeros_like(best) if maps.shape[2] == 1 else np.full_like(best, -np.inf)
    for plane in planes:
        np.maximum(second, np.minimum(best, plane), out=second)
        best = np.maximum(best, plane)
    return np.flatnonzero(np.abs(best - second) <= limit)


def _plane(maps: Logits, index: int, size: tuple[int, ...]) -> Array:
    return cv2.resize(np.ascontiguousarray(maps[:, :, index]), size[::-1], interpolation=cv2.INTER_LINEAR)


def _taps(length: int, target: int, places: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """The two pixels of each place along an axis, and the second one's share [n, 1]."""
    position = (places + 0.5) * (length / target) - 0.5
    first = np.floor(position)
    share = (position - first).astype(np.float32)
    index = first.astype(np.intp)
    return index.clip(0, length - 1), (index + 1).clip(0, length - 1), share[:, None]


def _between(first: Array, second: Array, share: Array) -> Logits:
    """`first + share * (second - first)` with one rounding for product and sum: in double both are as good as exact."""
    product = share.astype(np.float64) * (second - first)
    total: Array = first + product
    return total.astype(np.float32)
