from __future__ import annotations

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.images import read_image
from edgeseg.samples import FRAMES
from edgeseg.smoothing import Smoother

Array = np.ndarray


def two_classes(foreground: Array) -> Array:
    """Probabilities [2, H, W] of background and foreground."""
    return np.stack((1 - foreground, foreground)).astype(np.float32)


def disagreement(masks: list[Array]) -> float:
    """Mean share of pixels that change from one mask to the next."""
    return float(np.mean([np.mean(a != b) for a, b in itertools.pairwise(masks)]))


def noisy_head(count: int) -> list[Array]:
    """A real outline, soft as a network's, with noise in the logits that is new in every frame."""
    mask = (read_image(FRAMES / "masks" / "016_HC.png") > 0).astype(np.uint8)
    small = cv2.resize(mask, (200, 135), interpolation=cv2.INTER_NEAREST)
    distance = cv2.distanceTransform(small, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - small, cv2.DIST_L2, 5)
    rng = np.random.default_rng(0)
    noise = (2 * cv2.GaussianBlur(rng.standard_normal(distance.shape), (0, 0), 3) * 6 for _ in range(count))
    return [two_classes(1 / (1 + np.exp(-(np.clip(distance, -6, 6) + n)))) for n in noise]


def test_flicker_goes_down_with_the_weight() -> None:
    frames = noisy_head(20)
    flicker = {}
    for weight in (0.0, 0.5, 0.8):
        smoother = Smoother(weight)
        flicker[weight] = disagreement([smoother.update(f) for f in frames])
    assert flicker[0.0] > 0.005
    assert flicker[0.5] < 0.6 * flicker[0.0]
    assert flicker[0.8] < 0.3 * flicker[0.0]


@pytest.mark.parametrize(("weight", "delay"), [(0.0, 0), (0.3, 0), (0.6, 1), (0.8, 3), (0.9, 6)])
def test_a_moving_edge_is_late_by_the_frames_stated(weight: float, delay: int) -> None:
    # One column more every frame: the edge of the smoothed mask is where it was `delay` frames ago.
    smoother = Smoother(weight)
    assert smoother.delay_frames == delay
    edges = []
    for column in range(30):
        frame = np.zeros((4, 40))
        frame[:, : column + 1] = 1
        edges.append(int(smoother.update(two_classes(frame))[0].sum()) - 1)
    assert edges[10:] == [column - delay for column in range(10, 30)]


def test_the_smoothed_value_is_the_formula() -> None:
    smoother = Smoother(0.75)
    frames = np.random.default_rng(1).random((6, 3, 5, 7)).astype(np.float32)
    expected = frames[0].astype(np.float64)
    for frame in frames:
        smoother.update(frame)
        expected = 0.75 * expected + 0.25 * frame
    assert smoother.confidence is not None
    assert np.allclose(smoother.confidence, expected, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (4, 1), (1, 4), (31, 17)])
def test_the_mask_is_the_likeliest_class(classes: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(classes)
    frames = rng.integers(0, 4, (4, classes, *size)).astype(np.float32)  # with equals
    smoother = Smoother(0.5)
    for frame in frames:
        mask = smoother.update(frame)
        assert mask.dtype == np.uint8
        assert smoother.confidence is not None
        assert np.array_equal(mask, smoother.confidence.argmax(0))


def test_another_size_or_a_reset_starts_again() -> None:
    smoother = Smoother(0.9)
    on, off = two_classes(np.ones((6, 8))), two_classes(np.zeros((6, 8)))
    smoother.update(on)
    assert smoother.update(off).all()
    smoother.reset()
    assert not smoother.update(off).any()
    smoother.update(on)
    assert smoother.update(two_classes(np.ones((8, 6)))).all()
    assert smoother.update(np.stack((off[0], off[1], off[1]))).shape == (6, 8)
    assert not smoother.update(two_classes(np.zeros((6, 8)))).any()


def test_the_frame_given_is_neither_changed_nor_kept() -> None:
    smoother = Smoother(0.5)
    first = two_classes(np.ones((4, 4)))
    smoother.update(first)
    smoother.update(two_classes(np.zeros((4, 4))))
    assert first[1].all()
    first[:] = 0
    assert smoother.confidence is not None
    assert np.all(smoother.confidence == 0.5)


def test_only_the_mask_is_allocated() -> None:
    frame = np.random.default_rng(0).random((3, 240, 320)).astype(np.float32)
    smoother = Smoother(0.5)
    smoother.update(frame)
    tracemalloc.start()
    try:
        smoother.update(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 240 * 320 + 8192


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_weights_out_of_range(weight: float) -> None:
    with pytest.raises(BadInput, match="0 \\(none\\) to below 1"):
        Smoother(weight)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.float32), np.zeros((1, 4, 4), np.float32), np.zeros((2, 4, 4), np.float64)]
)
def test_what_is_no_confidence_is_refused(wrong: Array) -> None:
    with pytest.raises(BadInput, match="at least two classes"):
        Smoother(0.5).update(wrong)
