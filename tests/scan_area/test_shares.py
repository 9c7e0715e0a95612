"""Fixed shares of a frame in whole pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeseg import BadInput
from edgeseg.scan_area import cut, find_area, fixed_area
from edgeseg.types import Box, ScanArea


def edges(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.left + box.width, box.top + box.height


@pytest.mark.parametrize(
    ("shares", "shape", "expected"),
    [
        ((0, 0, 1, 1), (540, 800), (0, 0, 800, 540)),
        ((0.25, 0.5, 0.5, 0.25), (540, 800), (200, 270, 600, 405)),
        ((0.1, 0.1, 0.9, 0.9), (540, 800, 3), (80, 54, 800, 540)),
        ((0.5, 0.5, 0.5, 0.5), (1, 1), (0, 0, 1, 1)),  # the half is rounded up, and back into the frame
        ((0.5, 0.5, 0.5, 0.5), (3, 5), (3, 2, 5, 3)),
        ((0.999, 0.0, 0.001, 1e-9), (9, 9), (8, 0, 9, 1)),  # never empty
        ((1 / 3, 1 / 3, 1 / 3, 1 / 3), (100, 100), (33, 33, 67, 67)),
    ],
)
def test_shares_become_whole_pixels(
    shares: tuple[float, ...], shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert edges(fixed_area(shape, ScanArea(False, *shares))) == expected
    assert edges(find_area(np.zeros(shape, np.uint8), ScanArea(False, *shares))) == expected


def test_an_area_lies_in_its_frame_whatever_the_shares_and_the_size() -> None:
    shares = (0.0, 1e-12, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999999)
    for start, end, size in itertools.product(shares, (*shares[1:], 1.0), (1, 2, 3, 7, 100, 32766)):
        if start < end:
            box = fixed_area((size, size), ScanArea(False, start, start, end - start, end - start))
            assert 0 <= box.left < box.left + box.width <= size
            assert 0 <= box.top < box.top + box.height <= size


@pytest.mark.parametrize(
    "shares",
    [
        (-0.1, 0, 1, 1),
        (0, 0, 1.1, 1),
        (0, 0, 0, 1),
        (0, 0, 1, 0),
        (0.5, 0, 0.6, 1),
        (1, 0, 0, 1),
        (0, float("nan"), 1, 1),
    ],
)
def test_what_is_no_part_of_a_frame_is_refused_in_one_line(shares: tuple[float, ...]) -> None:
    with pytest.raises(
        BadInput, match=r"scan area has (left|top) \+ (width|height) = .*, expected shares of the frame"
    ):
        fixed_area((540, 800), ScanArea(False, *shares))


def test_cut_is_a_view_of_the_area() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert cut(image, Box(1, 2, 3, 2)).tolist() == [[13, 14, 15], [19, 20, 21]]
    assert np.shares_memory(cut(image, Box(1, 2, 3, 2)), image)
    assert cut(image, None) is image
