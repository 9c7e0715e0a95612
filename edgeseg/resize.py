"""The resize of 8-bit frames as docs/preprocess.md defines it, with the same bytes on every processor.

OpenCV's wheels for x86-64 give these bytes. Those for ARM resize with Carotene and KleidiCV, which round otherwise: by
up to 4 gray values on a quarter of the pixels, enough to fail an fp32 network's self-test. There, numpy does it.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.types import Array, Interpolation

OPENCV_IS_EXACT = platform.machine() in ("x86_64", "AMD64")
_CV2_INTERPOLATION = {Interpolation.LINEAR: cv2.INTER_LINEAR, Interpolation.AREA: cv2.INTER_AREA}
_ONE = 2048  # of the coefficients, which have 11 bits
_SLIVER = 1e-3  # of a pixel: what an area leaves out

Indices = NDArray[np.intp]
Shares = NDArray[np.float32]
Coefficients = NDArray[np.int32]


def resizer(size: tuple[int, int], interpolation: Interpolation, out: Array | None = None) -> Callable[[Array], Array]:
    """What resizes images [H, W] or [H, W, 3] uint8 to one size, with the same bytes on every processor.

    Args:
        size: width and height of the results.
        interpolation: as OpenCV's INTER_LINEAR or INTER_AREA.
        out: where to write them, [h, w] or [h, w, 3] uint8; None for new memory each time.
    """
    if OPENCV_IS_EXACT:
        return partial(cv2.resize, dsize=size, dst=out, interpolation=_CV2_INTERPOLATION[interpolation])
    return partial(resize_exactly, size=size, interpolation=interpolation, out=out)


def resize_exactly(
    image: Array, size: tuple[int, int], interpolation: Interpolation, out: Array | None = None
) -> Array:
    """One such image, without OpenCV."""
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    down, across = _Axis(height, size[1]), _Axis(width, size[0])
    flat = np.ascontiguousarray(image).reshape(height, width * channels)
    if down.whole == across.whole == 2:
        small: Array = (_block_sums(flat, down, across, channels) + 2) >> 2
    elif interpolation is Interpolation.LINEAR or min(down.scale, across.scale) < 1:
        small = _linear(flat, down, across, channels, interpolation is Interpolation.AREA)
    elif down.whole and across.whole:
        sums = _block_sums(flat, down, across, channels).astype(np.float32)
        small = np.rint(sums * np.float32(1 / np.float32(down.whole * across.whole)))
    else:
        small = np.rint(_area(flat, down, across, channels))
    if out is None:
        out = np.empty((*size[::-1], *image.shape[2:]), np.uint8)
    np.copyto(out.reshape(small.shape), small, casting="unsafe")
    return out


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized: from so many pixels to so many."""

    length: int
    target: int

    @property
    def scale(self) -> float:
        return 1.0 / (self.target / self.length)

    @property
    def whole(self) -> int:
        """The scale where it is a whole number, else 0."""
        nearest = round(self.scale)
        return nearest if abs(self.scale - nearest) < np.finfo(np.float64).eps else 0


@dataclass(frozen=True)
class _Taps:
    """The two pixels of every target of a linear resize, and their shares in 2048."""

    first: Indices
    second: Indices
    first_share: Coefficients
    second_share: Coefficients


def _linear(flat: Array, down: _Axis, across: _Axis, channels: int, enlarging: bool) -> NDArray[np.int32]:
    columns, rows, used = _linear_plan(down, across, channels, enlarging)
    lines = flat[used] if len(used) < len(flat) else flat
    stretched = np.multiply(lines.take(columns.first, 1), columns.first_share, dtype=np.int32)
    stretched += np.multiply(lines.take(columns.second, 1), columns.second_share, dtype=np.int32)
    stretched >>= 4
    small = stretched.take(rows.first, 0)
    small *= rows.first_share[:, None]
    small >>= 16
    below = stretched.take(rows.second, 0)
    below *= rows.second_share[:, None]
    below >>= 16
    small += below
    small += 2
    small >>= 2
    return small


@lru_cache(maxsize=8)
def _linear_plan(down: _Axis, across: _Axis, channels: int, enlarging: bool) -> tuple[_Taps, _Taps, Indices]:
    """Taps of the columns, those of the rows among the source's rows that are used, and these."""
    columns, rows = _taps(across, enlarging, border=True), _taps(down, enlarging, border=False)
    used = np.unique((rows.first, rows.second))
    columns = _Taps(
        _interleaved(columns.first, channels),
        _interleaved(columns.second, channels),
        columns.first_share.repeat(channels),
        columns.second_share.repeat(channels),
    )
    first, second = np.searchsorted(used, rows.first), np.searchsorted(used, rows.second)
    return columns, _Taps(first, second, rows.first_share, rows.second_share), used


def _taps(axis: _Axis, enlarging: bool, border: bool) -> _Taps:
    """Half-pixel centres; an area resize that enlarges (`enlarging`) has its own shares.

    Beyond the border a column has the border's pixel with all the weight (`border`), a row has it twice with the
    weights it would have had: OpenCV's way.
    """
    targets, last = np.arange(axis.target), axis.length - 1
    if enlarging:
        first = np.floor(targets * axis.scale)
        beyond = ((targets + 1) - (first + 1) * (axis.target / axis.length)).astype(np.float32)
        share = np.where(beyond <= 0, np.float32(0), beyond - np.floor(beyond))
    else:
        position = ((targets + 0.5) * axis.scale - 0.5).astype(np.float32)
        first = np.floor(position).astype(np.float64)
        share = position - np.floor(position)
    if border:
        share[(first < 0) | (first >= last)] = 0
        first = first.clip(0, last)
    index = first.astype(np.intp)
    coefficients = (np.rint(s * np.float32(_ONE)).astype(np.int32) for s in (np.float32(1) - share, share))
    return _Taps(index.clip(0, last), (index + 1).clip(0, last), *coefficients)


def _block_sums(flat: Array, down: _Axis, across: _Axis, channels: int) -> NDArray[np.int32]:
    """Sums of whole blocks of pixels, [h, w * channels]."""
    pixels = flat.reshape(len(flat), -1, channels)
    sums = np.zeros((down.target, across.target, channels), np.int32)
    for y in range(down.whole):
        for x in range(across.whole):
            sums += pixels[y :: down.whole, x :: across.whole]
    return sums.reshape(down.target, -1)


def _area(flat: Array, down: _Axis, across: _Axis, channels: int) -> Shares:
    """Every pixel with its share of the cell; the order of the sums is part of the definition."""
    columns, rows = _area_plan(across, channels), _area_plan(down, 1)
    pixels = flat.astype(np.float32)
    lines = np.zeros((len(flat), across.target * channels), np.float32)
    for index, share in columns:
        lines += pixels.take(index, 1) * share
    sums = np.zeros((down.target, lines.shape[1]), np.float32)
    for index, share in rows:
        sums += lines.take(index, 0) * share[:, None]
    return sums


@lru_cache(maxsize=8)
def _area_plan(axis: _Axis, channels: int) -> tuple[tuple[Indices, Shares], ...]:
    """For the first, second, ... piece of every target: the source's pixel and its share, 0 where there is none."""
    pieces = [_pieces(axis, target) for target in range(axis.target)]
    most = max(len(p) for p in pieces)
    filled = [p + [(0, 0.0)] * (most - len(p)) for p in pieces]
    plan = []
    for k in range(most):
        index = np.array([p[k][0] for p in filled], np.intp)
        share = np.array([p[k][1] for p in filled], np.float32)
        plan.append((_interleaved(index, channels), share.repeat(channels)))
    return tuple(plan)


def _pieces(axis: _Axis, target: int) -> list[tuple[int, float]]:
    start = target * axis.scale
    end = start + axis.scale
    size = min(axis.scale, axis.length - start)
    last = min(math.floor(end), axis.length - 1)
    first = min(math.ceil(start), last)
    pieces = [(first - 1, (first - start) / size)] if first - start > _SLIVER else []
    pieces += [(k, 1 / size) for k in range(first, last)]
    if end - last > _SLIVER:
        pieces.append((last, min(end - last, 1.0, size) / size))
    return pieces


def _interleaved(index: Indices, channels: int) -> Indices:
    """Indices of pixels as those of the values in a row of interleaved channels."""
    return (index[:, None] * channels + np.arange(channels)).reshape(-1)
