"""Outlines follow the masks, and the detail shows where two masks differ most."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from edgeseg.report.outlines import detail_of, outline, overlay, picture


def drawn(path: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask again: the polygons of a path, filled by the even-odd rule."""
    canvas = np.zeros(shape, np.uint8)
    polygons = []
    for part in path.split("M")[1:]:
        first, *steps = part.rstrip("z").split("l")
        points = [tuple(int(v) for v in first.split())]
        for step in steps:
            x, y = (int(v) for v in step.split())
            points.append((points[-1][0] + x, points[-1][1] + y))
        polygons.append(np.array(points, np.int32))
    cv2.fillPoly(canvas, polygons, 1)
    return canvas


def test_an_outline_is_the_mask_without_loss() -> None:
    mask = np.zeros((60, 80), np.uint8)
    cv2.ellipse(mask, (30, 25), (20, 12), 30, 0, 360, 1, -1)
    mask[50:55, 70:78] = 1
    assert np.array_equal(drawn(outline(mask), mask.shape), mask)
    assert outline(np.zeros((8, 8), np.uint8)) == ""


def test_every_class_has_its_outline() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:8, 2:8], mask[10:18, 10:18] = 1, 3
    assert outline(mask).count("M") == 2


@pytest.mark.parametrize("corner", [(0, 0), (0, 170), (110, 0), (110, 170)])
def test_the_detail_holds_the_largest_difference(corner: tuple[int, int]) -> None:
    source = np.zeros((120, 180), np.uint8)
    source[40:80, 50:130] = 1
    artifact = source.copy()
    artifact[40, 50:60] = 0  # a line
    top, left = corner
    artifact[top : top + 10, left : left + 10] = 1  # and a patch
    x, y, width, height = detail_of(source, artifact)
    assert 0 <= x <= 180 - width
    assert 0 <= y <= 120 - height
    assert x <= left
    assert left + 10 <= x + width
    assert y <= top
    assert top + 10 <= y + height
    found = overlay("row", "worst", 3, (source, artifact, None))
    assert found.differing == 110
    assert found.truth == ""


def test_equal_masks_show_the_top_of_the_outline() -> None:
    mask = np.zeros((90, 90), np.uint8)
    mask[30:60, 30:60] = 1
    x, y, width, height = detail_of(mask, mask)
    assert x <= 30 <= x + width
    assert y <= 30 <= y + height
    empty = np.zeros((90, 90), np.uint8)
    assert detail_of(empty, empty) == (40, 40, 10, 10)


@pytest.mark.parametrize("shape", [(540, 800), (540, 800, 3), (30, 20)])
def test_a_picture_is_the_frame_made_smaller(shape: tuple[int, ...]) -> None:
    frame = np.full(shape, 40, np.uint8)
    frame[: shape[0] // 2] = (200, 100, 30) if len(shape) == 3 else 200
    found = picture("frame-1", frame)
    assert (found.height, found.width) == shape[:2]
    data = base64.b64decode(found.uri.removeprefix("data:image/webp;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert max(image.shape[:2]) == min(560, max(shape[:2]))
    expected = (30, 100, 200) if len(shape) == 3 else (200, 200, 200)  # OpenCV reads BGR
    assert np.abs(image[2, 2].astype(int) - expected).max() < 12
