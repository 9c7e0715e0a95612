"""Faults of a deployment are told apart by name, on a real frame."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg import samples
from edgeseg.diagnosis import input_fault, mask_fault
from edgeseg.images import read_image

FRAME = read_image(next(iter(sorted((Path(samples.__file__).parent / "frames" / "images").glob("*.png")))))
GRAY = cv2.resize(FRAME, (256, 256))
COLOUR = np.stack([GRAY, np.roll(GRAY, 5, 1) // 2, GRAY // 3], -1)


def corner(frame):
    """A resize that takes pixel i of the result at i times the scale: the corners coincide, the centres do not."""
    height, width = frame.shape
    return cv2.warpAffine(frame, np.float32([[256 / width, 0, 0], [0, 256 / height, 0]]), (256, 256))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (corner(FRAME), "shifted by half a pixel"),
        (cv2.resize(FRAME, (256, 256), interpolation=cv2.INTER_NEAREST), "nearest interpolation"),
        (GRAY.T, "transposed"),
        (GRAY[:, ::-1], "mirrored left to right"),
        (GRAY[::-1], "mirrored top to bottom"),
        (GRAY // 2, r"another scale \(0\.[45]"),
        (np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8), "no usual fault explains"),
        (GRAY[:128], "has the shape"),
    ],
)
def test_each_fault_of_a_gray_input_has_its_name(found, said):
    assert input_fault(GRAY, np.ascontiguousarray(found), FRAME) is not None
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(input_fault(GRAY, np.ascontiguousarray(found), FRAME))


def test_colours_in_the_other_order_and_one_scaled_channel():
    frame = np.repeat(FRAME[..., None], 3, -1)
    assert "BGR for RGB" in str(input_fault(COLOUR, COLOUR[..., ::-1].copy(), frame))
    scaled = COLOUR.copy()
    scaled[..., 1] = np.clip(scaled[..., 1] * 1.5, 0, 255)
    assert re.search(r"another scale \(1\.00 / 1\.[45]\d / 1\.00\)", str(input_fault(COLOUR, scaled, frame)))


def test_what_another_build_rounds_differently_is_no_fault():
    assert input_fault(GRAY, GRAY, FRAME) is None
    assert input_fault(GRAY, np.clip(GRAY.astype(int) + 1, 0, 255).astype(np.uint8), FRAME) is None


def test_a_turned_mask_is_named_and_a_right_one_is_not():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 10:25] = 1
    assert mask_fault(mask, mask) is None
    assert mask_fault(mask, mask[:, ::-1]) == "mirrored left to right"
    assert mask_fault(mask, mask[::-1]) == "mirrored top to bottom"
    assert mask_fault(mask[:, :40], mask[:, :40].T) == "transposed (rows and columns swapped)"
