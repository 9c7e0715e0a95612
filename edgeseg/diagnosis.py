"""Why a picture is not the one that was expected: the usual faults of a deployment, told apart by trying each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from edgeseg.types import Array, Frame, Mask

# A fault is named where it explains this share of the squared difference: rounding is never the same.
_EXPLAINED = 0.8
_TOLERANCE = 1.0  # of 255: what another build of OpenCV may round differently
_COLOUR = 3

_INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}

_Turn = Callable[[Array], Array]
_TURNS: dict[str, _Turn] = {
    "mirrored left to right": lambda a: a[:, ::-1],
    "mirrored top to bottom": lambda a: a[::-1],
    "rotated by 180 degrees": lambda a: a[::-1, ::-1],
    "transposed (rows and columns swapped)": lambda a: a.swapaxes(0, 1),
}


def input_fault(expected: Frame, found: Frame, frame: Frame) -> str | None:
    """What is wrong with a network input, in words; None where both agree within one gray value.

    Args:
        expected: [h, w] or [h, w, 3] uint8, recorded at conversion.
        found: the same frame as it was prepared here.
        frame: [H, W] or [H, W, 3] uint8, that both were made of.
    """
    if expected.shape != found.shape:
        return f"has the shape {found.shape}, recorded was {expected.shape}"
    difference = np.abs(expected.astype(np.float32) - found)
    if float(difference.max()) <= _TOLERANCE:
        return None
    total = _energy(expected, found)
    faults = [(name, _energy(changed, found)) for name, changed in _faults(expected, found, frame)]
    name, left = min(faults, key=lambda fault: fault[1])
    named = name if left <= (1 - _EXPLAINED) * total else "differs in a way that no usual fault explains"
    return f"{named} (mean difference {difference.mean():.1f} of 255)"


def mask_fault(expected: Mask, found: Mask) -> str | None:
    """How a mask [H, W] uint8 is turned or mirrored against the expected one; None where that explains nothing."""
    best, name = _agreement(expected, found), None
    for label, turn in _TURNS.items():
        if (agreement := _agreement(turn(expected), found)) > best:
            best, name = agreement, label
    return name


def _faults(expected: Frame, found: Frame, frame: Frame) -> Iterator[tuple[str, Array]]:
    """Each fault with the picture it would have made."""
    frame, size = _coloured(frame, expected.ndim), expected.shape[1::-1]
    for name, turn in _TURNS.items():
        for flag in _INTERPOLATIONS.values():
            yield f"is {name}", cv2.resize(np.ascontiguousarray(turn(frame)), size, interpolation=flag)
    if expected.ndim == _COLOUR:
        yield "has its colours in the other order (BGR for RGB)", expected[..., ::-1]
    factors = _factors(expected, found)
    yield f"has another scale ({' / '.join(f'{f:.2f}' for f in np.atleast_1d(factors))})", expected * factors
    yield from _resizes(frame, *size)


def _resizes(frame: Frame, width: int, height: int) -> Iterator[tuple[str, Array]]:
    for name, flag in _INTERPOLATIONS.items():
        yield f"was resized by {name} interpolation", cv2.resize(frame, (width, height), interpolation=flag)
    rows, columns = frame.shape[:2]
    shifted = "is shifted by half a pixel (another corner convention of the resize)"
    yield shifted, _sampled(frame, np.arange(width) * columns / width, np.arange(height) * rows / height)
    yield shifted, _sampled(frame, np.linspace(0, columns - 1, width), np.linspace(0, rows - 1, height))


def _sampled(frame: Frame, x: Array, y: Array) -> Array:
    """The frame at columns `x` and rows `y`, in pixels, bilinear."""
    grid = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return np.asarray(cv2.remap(frame, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _factors(expected: Frame, found: Frame) -> Array:
    """The factor of each channel that fits best."""
    a = expected.astype(np.float64)
    fitted: Array = np.sum(a * found, axis=(0, 1)) / np.maximum(np.sum(a**2, axis=(0, 1)), 1.0)
    return fitted


def _coloured(frame: Frame, rank: int) -> Frame:
    if frame.ndim == rank:
        return frame
    code = cv2.COLOR_RGB2GRAY if frame.ndim == _COLOUR else cv2.COLOR_GRAY2RGB
    return np.asarray(cv2.cvtColor(frame, code), np.uint8)


def _energy(a: Array, b: Array) -> float:
    return float(np.sum((a.astype(np.float32) - b) ** 2))


def _agreement(a: Mask, b: Mask) -> float:
    return float(np.mean(a == b)) if a.shape == b.shape else 0.0
