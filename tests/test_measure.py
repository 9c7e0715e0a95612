from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.measure import contours, measure
from edgeseg.metrics import fit_ellipse

CLASSES = ("background", "head", "cyst")


def ellipse(shape: tuple[int, int] = (540, 800), label: int = 1) -> np.ndarray:
    """A filled ellipse of full axes 301 x 201 pixels around (402, 265), 30 degrees."""
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (402, 265), (150, 100), 30, 0, 360, label, -1)
    return mask


def test_measurements_of_several_classes() -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[10:20, 10:30] = 2
    empty, box = measure(mask, CLASSES, 0.5)
    assert (empty.label, empty.area_px, empty.area_mm2, empty.circumference_mm) == ("head", 0, 0.0, None)
    assert (empty.long_axis_mm, empty.short_axis_mm, empty.centroid_px) == (None, None, None)
    assert (box.label, box.area_px, box.area_mm2) == ("cyst", 200, 50.0)
    assert box.circumference_mm is not None
    assert box.centroid_px == (19.5, 14.5)


def test_an_ellipse_is_measured_to_a_pixel() -> None:
    (head,) = measure(ellipse(), CLASSES[:2], 0.2)
    assert head.area_mm2 == pytest.approx(np.pi * 150 * 100 * 0.04, rel=0.01)
    assert head.long_axis_mm == pytest.approx(300 * 0.2, abs=0.2)
    assert head.short_axis_mm == pytest.approx(200 * 0.2, abs=0.2)
    assert head.circumference_mm == pytest.approx(793.3 * 0.2, rel=0.003)  # by numerical integration
    assert head.centroid_px == pytest.approx((402, 265), abs=0.05)
    assert str(head) == "head 19.0 cm2, 158.6 mm around"


def test_the_box_changes_no_figure() -> None:
    # Against the whole frame, and where the class touches all four edges.
    for mask in (ellipse(), cv2.resize(ellipse()[165:366, 250:553], (90, 70), interpolation=cv2.INTER_NEAREST)):
        whole = fit_ellipse(mask)
        assert whole is not None
        (head,) = measure(mask, CLASSES[:2], 1.0)
        assert head.circumference_mm == pytest.approx(whole.circumference(), rel=1e-4)
        moments = cv2.moments(mask, binaryImage=True)
        assert head.area_px == moments["m00"]
        assert head.centroid_px == pytest.approx((moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]))


def test_without_pixel_size_only_pixels() -> None:
    mask = ellipse()
    head, cyst = measure(mask, CLASSES, None)
    figures = (head.area_mm2, head.circumference_mm, head.long_axis_mm, head.short_axis_mm)
    assert figures == (None, None, None, None)
    assert head.area_px == np.count_nonzero(mask)
    assert head.centroid_px is not None
    assert (cyst.area_px, cyst.area_mm2) == (0, None)
    assert str(head) == f"head {head.area_px} px"


def test_specks_have_an_area_but_no_ellipse() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 1
    (speck,) = measure(mask, CLASSES[:2], 0.5)
    assert (speck.area_mm2, speck.circumference_mm, speck.long_axis_mm) == (0.25, None, None)
    assert speck.centroid_px == (4, 4)


@pytest.mark.parametrize("seed", range(5))
def test_contours_filled_give_the_mask_back(seed: int) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((120, 160)), (0, 0), 6)
    mask = np.digitize(noise, (0.02, 0.06)).astype(np.uint8)  # regions that touch each other and the edges
    found = contours(mask, CLASSES)
    assert len(found) == 2
    for label, outlines in enumerate(found, start=1):
        areas = [cv2.contourArea(c) for c in outlines]
        assert areas == sorted(areas, reverse=True)
        assert all(c.dtype == np.int32 and c.ndim == 2 and c.shape[1] == 2 for c in outlines)
        filled = cv2.fillPoly(np.zeros_like(mask), outlines, 1)
        assert (filled[mask == label] == 1).all()
        # More only where a hole is.
        outer, _ = cv2.findContours((mask == label).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert len(outer) == len(outlines)
        assert np.array_equal(filled, cv2.drawContours(np.zeros_like(mask), outer, -1, 1, -1))


def test_contours_are_x_y_largest_first_and_without_holes() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:7, 50:55] = 1
    mask[10:30, 5:45] = 1
    mask[15:20, 10:20] = 0
    head, cyst = contours(mask, CLASSES)
    assert cyst == []
    assert [sorted(map(tuple, c.tolist())) for c in head] == [
        [(5, 10), (5, 29), (44, 10), (44, 29)],
        [(50, 5), (50, 6), (54, 5), (54, 6)],
    ]


def test_an_empty_mask_has_nothing() -> None:
    mask = np.zeros((4, 5), np.uint8)
    assert contours(mask, CLASSES) == [[], []]
    assert [m.area_px for m in measure(mask, CLASSES, 1.0)] == [0, 0]


@pytest.mark.parametrize("mask", [np.zeros((4, 4), np.int64), np.zeros((4, 4, 1), np.uint8)])
def test_what_is_no_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(BadInput, match="expected uint8"):
        measure(mask, CLASSES, None)
    with pytest.raises(BadInput, match="expected uint8"):
        contours(mask, CLASSES)
