"""Metrics against figures worked out by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edgeseg import metrics, samples
from edgeseg.dataset import read_folder


def masks(*rows: list[list[int]]) -> list[np.ndarray]:
    return [np.array(r, np.uint8) for r in rows]


def test_dice_of_two_small_masks() -> None:
    a, b = masks([[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 0]])
    assert metrics.dice(a, b) == pytest.approx(2 * 1 / (2 + 3))
    assert metrics.dice(a, a) == 1
    assert metrics.dice(a, 1 - a) == 0


def test_dice_of_empty_masks() -> None:
    empty, some = np.zeros((2, 2), np.uint8), np.eye(2, dtype=np.uint8)
    assert metrics.dice(empty, empty) == 1
    assert metrics.dice(empty, some) == metrics.dice(some, empty) == 0


def test_dice_of_several_classes_is_the_mean_over_those_that_appear() -> None:
    a, b = masks([[1, 1, 2], [0, 0, 0]], [[1, 1, 1], [0, 3, 0]])
    assert metrics.dice(a, b) == pytest.approx((2 * 2 / (2 + 3) + 0 + 0) / 3)


def test_agreement_counts_equal_pixels() -> None:
    a, b = masks([[0, 1, 2, 2]], [[0, 1, 2, 1]])
    assert metrics.agreement(a, b) == 0.75


def test_sqnr_in_decibels() -> None:
    signal = np.array([3.0, 4.0], np.float32)
    assert metrics.sqnr_db(signal, signal + np.float32([0.5, 0.0])) == pytest.approx(10 * math.log10(25 / 0.25))
    assert metrics.sqnr_db(signal, signal) == math.inf


def test_logit_error_is_relative_to_the_range() -> None:
    a = np.array([-2.0, 0.0, 6.0], np.float32)
    assert metrics.logit_error(a, a + np.float32([0.4, -0.8, 0])) == pytest.approx(0.1)
    assert math.isnan(metrics.logit_error(a, a * np.nan))


def ellipse(a: float, b: float, angle: float, size: int = 400) -> np.ndarray:
    """Pixels whose centre lies in the ellipse: what a mask without any line width is."""
    y, x = np.mgrid[:size, :size] - size / 2 + 0.3
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return ((u / a) ** 2 + (v / b) ** 2 <= 1).astype(np.uint8)


def test_ramanujans_circumference_of_a_circle_and_of_a_known_ellipse() -> None:
    assert metrics.Ellipse((20, 20), (0, 0), 0).circumference() == pytest.approx(2 * math.pi * 10)
    assert metrics.Ellipse((20, 20), (0, 0), 0).circumference(1.0) == pytest.approx(2 * math.pi * 9)
    # a = 2, b = 1: 4 a E(e) with the complete elliptic integral is 9.688448220547674
    assert metrics.Ellipse((4, 2), (0, 0), 0).circumference() == pytest.approx(9.688448220547674, rel=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.4])
def test_a_drawn_ellipse_is_measured_within_a_pixel(angle: float) -> None:
    a, b = 150.0, 100.0
    fitted = metrics.fit_ellipse(ellipse(a, b, angle))
    assert fitted is not None
    assert sorted(fitted.axes) == pytest.approx([2 * b, 2 * a], abs=1.5)
    h = ((a - b) / (a + b)) ** 2
    truth = math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    measured = metrics.head_circumference_mm(ellipse(a, b, angle), 0.2)
    assert measured == pytest.approx(0.2 * truth, rel=0.006)


def test_the_largest_contour_counts_and_its_holes_do_not() -> None:
    mask = ellipse(120, 80, 0.3)
    whole = metrics.head_circumference_mm(mask, 1.0)
    mask[200:210, 200:210] = 0
    mask[:20, :20] = 1
    assert metrics.head_circumference_mm(mask, 1.0) == pytest.approx(whole)


@pytest.mark.parametrize("mask", [np.zeros((50, 50)), np.eye(3), np.pad(np.ones((2, 2)), 5), np.ones((1, 1))])
def test_no_ellipse_fits_nothing_or_a_few_pixels(mask: np.ndarray) -> None:
    assert metrics.head_circumference_mm(mask.astype(np.uint8), 1.0) is None


def test_the_offset_of_filled_outlines_is_found_and_taken_off() -> None:
    thick = []
    references, sizes = [], [0.1, 0.2, 0.4]
    for size, (a, b) in zip(sizes, [(150, 100), (120, 110), (90, 70)], strict=True):
        mask = ellipse(a, b, 0.4)
        bare = metrics.head_circumference_mm(mask, size)
        assert bare is not None
        references.append(bare)
        thick.append(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))))
    offset = metrics.outline_offset_px(thick, sizes, references)
    assert offset == pytest.approx(3, abs=0.3)
    for mask, size, reference in zip(thick, sizes, references, strict=True):
        assert metrics.head_circumference_mm(mask, size, offset) == pytest.approx(reference, rel=0.005)


def test_the_offset_of_nothing_is_zero() -> None:
    assert metrics.outline_offset_px([], [], []) == 0
    assert metrics.outline_offset_px([np.zeros((9, 9), np.uint8)], [1.0], [10.0]) == 0


def test_the_bootstrap_draws_whole_groups_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    values = list(rng.normal(0.9, 0.05, 60))
    singles, pairs = [str(i) for i in range(60)], [str(i // 20) for i in range(60)]
    low, high = metrics.bootstrap_interval(values, singles)
    assert low < np.mean(values) < high
    # The normal approximation of the mean's interval, which 60 independent values are near.
    assert high - low == pytest.approx(2 * 1.96 * np.std(values) / math.sqrt(60), rel=0.15)
    assert metrics.bootstrap_interval(values, singles) == (low, high)
    assert metrics.bootstrap_interval(values, singles, seed=1) != (low, high)
    grouped = metrics.bootstrap_interval(values, pairs)
    means = [np.mean(values[i : i + 20]) for i in (0, 20, 40)]
    assert min(means) - 1e-9 <= grouped[0] < grouped[1] <= max(means) + 1e-9


def test_one_group_has_no_width_and_equal_values_neither() -> None:
    assert metrics.bootstrap_interval([0.2, 0.4], ["a", "a"]) == pytest.approx((0.3, 0.3))
    assert metrics.bootstrap_interval([0.5] * 4, list("abcd")) == (0.5, 0.5)


def test_a_paired_interval_is_of_the_difference_and_narrower_than_the_means() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(0.9, 0.05, 60)
    values = reference - 0.003 + rng.normal(0, 0.002, 60)
    groups = [str(i // 2) for i in range(60)]
    low, high = metrics.paired_interval(list(values), list(reference), groups)
    assert low < np.mean(values - reference) < high < 0
    assert (low, high) == metrics.bootstrap_interval(list(values - reference), groups)
    own = metrics.bootstrap_interval(list(values), groups)
    assert high - low < 0.1 * (own[1] - own[0])


def test_a_paired_interval_of_a_constant_shift_has_no_width_and_needs_pairs() -> None:
    assert metrics.paired_interval([0.5, 0.75], [0.25, 0.5], ["a", "b"]) == (0.25, 0.25)
    with pytest.raises(ValueError, match="shorter"):
        metrics.paired_interval([0.5, 0.75], [0.25], ["a", "b"])


@pytest.mark.parametrize("classes", [2, 4, 20])
def test_one_table_has_dice_agreement_and_areas(classes: int) -> None:
    rng = np.random.default_rng(classes)
    a, b = (rng.integers(0, classes, (40, 30)).astype(np.uint8) for _ in range(2))
    table = metrics.overlap(a, b)
    assert table.shape == (classes, classes)
    for i in range(classes):
        assert table[i].sum() == np.count_nonzero(a == i)
        assert table[i, 1] == np.count_nonzero((a == i) & (b == 1))
    assert np.trace(table) / a.size == metrics.agreement(a, b)
    by_hand = [
        2 * np.count_nonzero((a == i) & (b == i)) / (np.count_nonzero(a == i) + np.count_nonzero(b == i))
        for i in range(1, classes)
    ]
    assert metrics.dice(a, b) == pytest.approx(np.mean(by_hand))


def test_hd95_of_two_lines_by_hand() -> None:
    a, b = np.zeros((30, 200), np.uint8), np.zeros((30, 200), np.uint8)
    a[10, 50:150] = 1
    b[13, 50:150] = 1
    assert metrics.hausdorff95_px(a, b) == 3
    b[29, 50] = 1  # one pixel in a hundred, 19 away: beyond the 95th percentile
    assert metrics.hausdorff95_px(a, b) == 3
    b[29, 50:60] = 1  # one in eleven
    assert metrics.hausdorff95_px(a, b) == metrics.hausdorff95_px(b, a) == pytest.approx(19)


def test_hd95_of_empty_masks_is_nothing_or_the_diagonal() -> None:
    empty, some = np.zeros((30, 40), np.uint8), np.eye(30, 40, dtype=np.uint8)
    assert metrics.hausdorff95_px(empty, empty) == 0
    assert metrics.hausdorff95_px(some, some) == 0
    assert metrics.hausdorff95_px(empty, some) == metrics.hausdorff95_px(some, empty) == 50


def test_hd95_of_several_classes_is_that_of_the_worst() -> None:
    a = np.zeros((60, 60), np.uint8)
    a[10:20, 10:20], a[40:50, 40:50] = 1, 2
    b = np.roll(a, 2, 0)
    assert metrics.hausdorff95_px(a, b) == 2
    assert metrics.hausdorff95_px(a, np.where(b == 1, 0, b).astype(np.uint8)) == pytest.approx(60 * math.sqrt(2))


def disturbed(mask: np.ndarray) -> list[np.ndarray]:
    """Moved, shrunk, turned, and with a piece of another place that touches the edge of the frame."""
    height, width = mask.shape
    moved = cv2.warpAffine(mask, np.array([[1, 0, 3], [0, 1, -2]], np.float32), (width, height))
    spotted = mask.copy()
    spotted[: height // 9, : width // 5] = 1
    return [moved, cv2.erode(mask, np.ones((9, 9), np.uint8)), np.ascontiguousarray(mask[::-1]), spotted]


def test_hd95_is_monai_s_on_real_masks() -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance

    for sample in read_folder(samples.FRAMES).samples[:6]:
        mask = sample.read_mask()
        for other in disturbed(mask):
            pair = (torch.from_numpy(m)[None, None] for m in (other, mask))
            want = float(compute_hausdorff_distance(*pair, include_background=True, percentile=95))
            # Distances are float32 there and here, up to the diagonal of 965 pixels.
            assert metrics.hausdorff95_px(other, mask) == pytest.approx(want, abs=1e-3)


def test_the_displacement_of_the_foreground() -> None:
    mask = np.zeros((50, 60), np.uint8)
    mask[10:20, 30:40] = 1
    assert metrics.shift_px(np.roll(mask, (3, -4), (0, 1)), mask) == (-4, 3)
    assert metrics.shift_px(mask * 2, mask) == (0, 0)
    assert metrics.shift_px(mask * 0, mask) is None


def test_noise_without_bound_is_no_perfect_signal() -> None:
    assert metrics.limited_db(1.0, math.nan) == metrics.limited_db(1.0, math.inf) == -metrics.SQNR_LIMIT_DB
    assert metrics.limited_db(1.0, 0.0) == metrics.SQNR_LIMIT_DB
    assert metrics.limited_db(100.0, 1.0) == pytest.approx(20.0)
