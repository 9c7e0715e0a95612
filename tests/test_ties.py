"""Pixels on the edge between two classes: where OpenCV's last bit may decide on ARM, the definition does."""

from __future__ import annotations

import platform
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg import preprocess as preprocessing
from edgeseg.ties import resized_at, settle

FUSED = platform.machine() == "x86_64" and "fma" in Path("/proc/cpuinfo").read_text()


def logits(height: int, width: int, classes: int, step: float = 0.0) -> np.ndarray:
    """[h, w, C]: noise, or such as an int8 network gives, multiples of `step`."""
    found = np.random.default_rng((height, width, classes)).normal(0, 4, (height, width, classes))
    return (np.round(found / step) * step if step else found).astype(np.float32)


def everywhere(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (axis.ravel() for axis in np.mgrid[: size[0], : size[1]])
    return resized_at(maps, size, rows, columns).reshape(*size, -1)


@pytest.mark.skipif(not FUSED, reason="OpenCV's wheels have this arithmetic where the processor has FMA")
@pytest.mark.parametrize("size", [(540, 800), (33, 47), (64, 200), (7, 5)])
def test_values_are_those_of_opencv_to_the_bit(size: tuple[int, int]) -> None:
    maps = logits(64, 48, 2)
    for index in range(2):
        wanted = cv2.resize(np.ascontiguousarray(maps[:, :, index]), size[::-1], interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(everywhere(maps, size)[:, :, index], wanted)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_what_rounding_decided_is_corrected_and_nothing_else(classes: int) -> None:
    maps, size = logits(16, 16, classes, step=1.0), (96, 128)
    values = everywhere(maps, size)
    wanted = (values[:, :, 0] > 0 if classes == 1 else values.argmax(2)).astype(np.uint8)
    ordered = np.sort(values, 2)
    margin = np.abs(values[:, :, 0]) if classes == 1 else ordered[:, :, -1] - ordered[:, :, -2]
    tied = margin < 1e-7
    assert tied.any()
    mask = np.where(tied, wanted ^ 1, wanted)
    clear = np.unravel_index(margin.argmax(), size)
    mask[clear] = 9  # not this module's business
    settle(mask, maps)
    assert mask[clear] == 9
    mask[clear] = wanted[clear]
    assert np.array_equal(mask, wanted)


def test_masks_are_settled_where_opencv_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = logits(16, 16, 1, step=1.0)
    output = maps.transpose(2, 0, 1)[None]
    wanted = (everywhere(maps, (96, 128))[:, :, 0] > 0).astype(np.uint8)
    real = cv2.resize

    def otherwise(image: np.ndarray, *args: object, **options: object) -> np.ndarray:
        """As OpenCV on ARM: off by a last bit."""
        found = real(image, *args, **options)
        if image.dtype == np.float32:
            found += np.random.default_rng(0).choice(np.float32([-3e-7, 3e-7]), found.shape)
        return found

    monkeypatch.setattr(cv2, "resize", otherwise)
    monkeypatch.setattr(preprocessing, "OPENCV_IS_EXACT", True)
    assert not np.array_equal(preprocessing.to_mask(output, (96, 128)), wanted)
    monkeypatch.setattr(preprocessing, "OPENCV_IS_EXACT", False)
    assert np.array_equal(preprocessing.to_mask(output, (96, 128)), wanted)
