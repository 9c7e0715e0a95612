"""How good a mask is and how far two results are apart. Plain numpy and OpenCV, so that the device can measure too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.types import Array, Mask

_FEW_CLASSES = 16
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

SQNR_LIMIT_DB = 200.0


def overlap(mask: Mask, reference: Mask) -> Array:
    """How many pixels each pair of classes has, [K, K] int64: rows are classes of `mask`, columns of `reference`.

    Dice, agreement and areas of two masks [H, W] all follow from it, in one pass over the pixels.
    """
    count = int(max(mask.max(), reference.max())) + 1
    if count <= _FEW_CLASSES:  # the pair fits into a byte
        pairs = cv2.addWeighted(mask, count, reference, 1, 0)
        table = cv2.calcHist([pairs], [0], None, [count**2], [0, count**2]).ravel()
    else:
        table = np.bincount((mask.astype(np.intp) * count + reference).ravel(), minlength=count**2)
    return table.astype(np.int64).reshape(count, count)


def dice_of(table: Array) -> float:
    """Dice similarity coefficient of two masks from their `overlap`; see `dice`."""
    both, sizes = np.diagonal(table), table.sum(0) + table.sum(1)
    seen = sizes > 0
    seen[0] = False
    return float(np.mean(2.0 * both[seen] / sizes[seen])) if seen.any() else 1.0


def dice(mask: Mask, reference: Mask) -> float:
    """Dice similarity coefficient 2|A n B| / (|A| + |B|) of two masks [H, W] (Dice, Ecology 26, 1945).

    Several classes: the mean over the foreground classes that appear in either mask. Both empty: 1.
    """
    return dice_of(overlap(mask, reference))


def agreement(mask: Mask, reference: Mask) -> float:
    """Share of pixels with the same class, of two masks [H, W]."""
    return float(np.mean(mask == reference))


def hausdorff95_px(mask: Mask, reference: Mask) -> float:
    """95th percentile Hausdorff distance of the outlines of two masks [H, W], in pixels (Huttenlocher et al. 1993).

    An outline is the pixels of a class with one of the four neighbours outside it or outside the frame. The distances
    from each pixel of either outline to the nearest of the other one give two 95th percentiles; the larger one counts.
    Several classes: the largest over the foreground classes that appear in either mask. Both empty: 0. One empty:
    the diagonal of the frame, because there is no outline to measure to.
    """
    worst = 0.0
    for index in range(1, int(max(mask.max(), reference.max())) + 1):
        a, b = ((m == index).view(np.uint8) for m in (mask, reference))
        worst = max(worst, _hausdorff95(a, b))
    return worst


def _hausdorff95(a: Array, b: Array) -> float:
    """The same of two masks of 0 and 1."""
    difference = cv2.bitwise_xor(a, b)
    if not cv2.countNonZero(difference):
        return 0.0
    if not cv2.countNonZero(a) or not cv2.countNonZero(b):
        return math.hypot(*a.shape)
    x, y, width, height = cv2.boundingRect(cv2.bitwise_or(a, b))
    lines = [_outline(m[y : y + height, x : x + width]) for m in (a, b)]
    return max(_directed95(*lines), _directed95(*reversed(lines)))


def _outline(mask: Array) -> Array:
    # Outside the frame is background, as outside the box that the masks were cut to.
    inner = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return cv2.subtract(mask, inner)


def _directed95(line: Array, other: Array) -> float:
    distances = cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.percentile(distances[line > 0], 95))


def shift_px(mask: Mask, reference: Mask) -> tuple[float, float] | None:
    """Displacement (x, y) of the centre of all foreground of two masks [H, W], in pixels; None where one is empty."""
    own, source = (cv2.moments(m, binaryImage=True) for m in (mask, reference))
    if not own["m00"] or not source["m00"]:
        return None
    x, y = (own[k] / own["m00"] - source[k] / source["m00"] for k in ("m10", "m01"))
    return x, y


def sqnr_db(reference: Array, result: Array) -> float:
    """Signal to quantization noise ratio 10 log10(sum r^2 / sum (r - x)^2) in dB; infinite for equal arrays."""
    signal = reference.astype(np.float64)
    return ratio_db(float(np.sum(signal**2)), float(np.sum((signal - result) ** 2)))


def ratio_db(signal: float, noise: float) -> float:
    """Two energies as 10 log10(signal / noise) in dB; infinite without noise."""
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-30) / noise)


def limited_db(signal: float, noise: float) -> float:
    """The same within +-SQNR_LIMIT_DB, so that it stays a number in JSON; the lower limit for noise without bound."""
    return min(SQNR_LIMIT_DB, ratio_db(signal, noise)) if math.isfinite(noise) else -SQNR_LIMIT_DB


def logit_error(reference: Array, result: Array) -> float:
    """Largest absolute difference over the range (max - min) of the reference. 0 is equal, 1 the whole range."""
    span = float(reference.max()) - float(reference.min())
    return float(np.max(np.abs(reference.astype(np.float64) - result))) / max(span, 1e-12)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse in pixels: full axis lengths, centre (x, y) and angle in degrees as OpenCV gives them."""

    axes: tuple[float, float]
    center: tuple[float, float]
    angle: float

    def circumference(self, offset_px: float = 0.0) -> float:
        """Circumference in pixels, `offset_px` taken off each semi-axis, by Ramanujan's second approximation (1914)."""
        a, b = (length / 2 - offset_px for length in self.axes)
        h = ((a - b) / (a + b)) ** 2
        return math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))


def fit_ellipse(mask: Mask, label: int = 1) -> Ellipse | None:
    """Least-squares ellipse through the largest outer contour of a class in a mask [H, W]; None where there is none."""
    contours, _ = cv2.findContours((mask == label).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return largest_ellipse(contours)


def largest_ellipse(contours: Sequence[Array]) -> Ellipse | None:
    """The same through the largest of contours [N, 1, 2] that have every pixel of the outline."""
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea)
    if len(contour) < 5:  # cv2.fitEllipse needs five points
        return None
    center, axes, angle = cv2.fitEllipse(contour)
    if not all(math.isfinite(v) and v > 0 for v in axes):
        return None
    return Ellipse((axes[0], axes[1]), (center[0], center[1]), angle)


def head_circumference_mm(mask: Mask, pixel_size_mm: float, offset_px: float = 0.0) -> float | None:
    """Head circumference in mm from the ellipse on the largest contour; None where no ellipse fits.

    Args:
        mask: [H, W], class 1 is the head.
        pixel_size_mm: edge of a square pixel.
        offset_px: taken off each semi-axis; see `outline_offset_px`.
    """
    ellipse = fit_ellipse(mask)
    return None if ellipse is None else ellipse.circumference(offset_px) * pixel_size_mm


def outline_offset_px(masks: Sequence[Mask], pixel_sizes_mm: Sequence[float], references_mm: Sequence[float]) -> float:
    """How far a filled mask's contour lies outside the line that was measured, in pixels per semi-axis.

    A filled outline includes the width of the line it was drawn with, so even a perfect mask reads too large. The
    bias is estimated on masks with known circumference (never the ones under test): the mean of
    (circumference of the mask - reference) / (2 pi pixel size).
    """
    offsets = []
    for mask, pixel_size, reference in zip(masks, pixel_sizes_mm, references_mm, strict=True):
        measured = head_circumference_mm(mask, pixel_size)
        if measured is not None:
            offsets.append((measured - reference) / (2 * math.pi * pixel_size))
    return float(np.mean(offsets)) if offsets else 0.0


def bootstrap_interval(
    values: Sequence[float], groups: Sequence[str], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, drawing whole groups (Efron and Tibshirani 1993, cluster bootstrap).

    Frames of one exam are not independent: the exam is what is drawn with replacement.

    Args:
        values: one per frame.
        groups: the group (exam) of each frame.
        level: coverage of the interval.
        resamples: number of bootstrap draws.
        seed: makes the interval reproducible.
    """
    data = np.asarray(values, np.float64)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    count = int(index.max()) + 1
    sums = np.bincount(index, weights=data, minlength=count)
    sizes = np.bincount(index, minlength=count)
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.percentile(means, (50 * (1 - level), 100 - 50 * (1 - level)))
    return float(low), float(high)


def paired_interval(
    values: Sequence[float],
    reference: Sequence[float],
    groups: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values - reference`, drawing whole groups.

    The same frame seen by two models makes a pair, so what one frame is harder than another by cancels out: the
    interval is of the difference, and much narrower than those of the two means.

    Args:
        values, reference: one per frame each, in the same order of frames.
        groups: the group (exam) of each frame.
        level, resamples, seed: as `bootstrap_interval`.

    Raises:
        ValueError: where the lengths differ.
    """
    differences = [value - base for value, base in zip(values, reference, strict=True)]
    return bootstrap_interval(differences, groups, level=level, resamples=resamples, seed=seed)
