"""The resize without OpenCV gives OpenCV's bytes, as its x86-64 wheels have them: ARM boards resize with it."""

from __future__ import annotations

import platform
from itertools import product

import cv2
import numpy as np
import pytest

from edgeseg import preprocess as preprocessing
from edgeseg import resize
from edgeseg.types import Interpolation, Preprocess

FLAGS = {Interpolation.LINEAR: cv2.INTER_LINEAR, Interpolation.AREA: cv2.INTER_AREA}
FRAMES = [
    *((1, 1), (1, 7), (2, 2), (3, 5), (17, 31), (64, 64), (33, 1024), (255, 257), (512, 512)),
    *((540, 800), (1080, 776)),
]
NETWORKS = [(1, 1), (5, 3), (8, 16), (37, 91), (64, 64), (255, 129), (256, 256), (320, 320), (540, 800)]
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenCV's wheels for other processors round otherwise")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


@x86
@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "colour"])
def test_bytes_are_those_of_opencv(interpolation: Interpolation, channels: tuple[int, ...]) -> None:
    for frame, (height, width) in product(FRAMES, NETWORKS):
        image = noise(*frame, *channels)
        wanted = cv2.resize(image, (width, height), interpolation=FLAGS[interpolation])
        got = resize.resize_exactly(image, (width, height), interpolation)
        assert got.dtype == np.uint8
        assert np.array_equal(got, wanted.reshape(got.shape)), (frame, height, width)


@x86
def test_random_sizes() -> None:
    rng = np.random.default_rng(0)
    for interpolation in (*Interpolation,) * 100:
        *frame, height, width = (int(side) for side in rng.integers(1, 200, 4))
        image = noise(*frame)
        wanted = cv2.resize(image, (width, height), interpolation=FLAGS[interpolation])
        assert np.array_equal(resize.resize_exactly(image, (width, height), interpolation), wanted), image.shape


def test_views_and_outputs() -> None:
    image = noise(90, 140, 3)
    out = np.zeros((32, 48, 3), np.uint8)
    for view in (image[5:70, 3:120], image[::-1], image[:, ::2]):
        wanted = resize.resize_exactly(view.copy(), (48, 32), Interpolation.LINEAR)
        assert resize.resize_exactly(view, (48, 32), Interpolation.LINEAR, out) is out
        assert np.array_equal(out, wanted)


@pytest.mark.parametrize("exact", [True, False])
def test_preprocessing_resizes_with_it(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    called = []
    monkeypatch.setattr(resize, "resize_exactly", lambda image, size, **_: called.append(size) or noise(*size[::-1]))
    monkeypatch.setattr(resize, "OPENCV_IS_EXACT", exact)
    preprocessing.to_input(noise(50, 60), Preprocess(16, 24, 1))
    assert called == ([] if exact else [(24, 16)])


def test_opencv_is_trusted_only_where_it_was_compared() -> None:
    assert resize.OPENCV_IS_EXACT is (platform.machine() in ("x86_64", "AMD64"))
