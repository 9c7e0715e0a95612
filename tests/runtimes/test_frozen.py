"""A picture that stands still is told from one that moves, whatever the codec adds."""

from __future__ import annotations

import itertools
import timeit
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.frames import open_frames
from edgeseg.overlay import ClipWriter
from edgeseg.runtimes.frozen import FreezeDetector
from edgeseg.samples import FRAMES

CLIPS = Path(__file__).parents[3] / "shared/data/pocus_cine_itkpocus"
RATE_HZ = 25.0


def frozen(frames: list[np.ndarray], freeze_s: float = 0.5) -> list[bool]:
    detector = FreezeDetector(freeze_s)
    return [detector.update(frame, index / RATE_HZ) > 0 for index, frame in enumerate(frames)]


def speckle(count: int, spread: float, size: tuple[int, ...] = (300, 400)) -> list[np.ndarray]:
    """A picture under noise that is new in every frame."""
    rng = np.random.default_rng(0)
    base = rng.uniform(40, 160, size)
    return [np.clip(base + rng.normal(0, spread, size), 0, 255).astype(np.uint8) for _ in range(count)]


def test_the_same_picture_is_frozen_after_its_time() -> None:
    [frame] = speckle(1, 5)
    assert frozen([frame] * 30) == [False] * 13 + [True] * 17
    detector = FreezeDetector(0.5)
    assert [detector.update(frame, t) for t in (10.0, 10.4, 10.5, 12.0)] == [0.0, 0.0, 0.5, 2.0]


def test_a_picture_with_live_noise_is_not() -> None:
    assert not any(frozen(speckle(60, 5)))


def test_the_noise_of_a_codec_does_not_hide_that_a_picture_stands_still(tmp_path: Path) -> None:
    real = [item.frame for item in open_frames(FRAMES)]
    with ClipWriter(tmp_path / "still.mp4", RATE_HZ) as writer:
        for _ in range(60):
            writer.write(cv2.cvtColor(real[0], cv2.COLOR_GRAY2RGB) if real[0].ndim == 2 else real[0])
    coded = [item.frame for item in open_frames(tmp_path / "still.mp4")]
    assert any(not np.array_equal(a, b) for a, b in itertools.pairwise(coded))
    assert all(frozen(coded)[30:])
    assert not any(frozen(real * 10))


def test_a_clock_in_a_corner_does_not_either_but_a_probe_that_moves_does() -> None:
    [frame] = speckle(1, 5)
    ticking = [frame.copy() for _ in range(40)]
    for index, picture in enumerate(ticking):
        picture[4:16, 4:40] = 6 * index
    assert any(frozen(ticking))
    assert not any(frozen([np.roll(frame, index, axis=0) for index in range(40)]))
    # Slowly too: it is compared with the picture that stood still, not with the one before.
    blurred = cv2.GaussianBlur(frame, (0, 0), 20)
    drift = [np.roll(blurred, index // 3, axis=1) for index in range(120)]
    assert not any(frozen(drift, 3.0))


def test_another_size_or_a_clock_that_goes_back_starts_anew() -> None:
    [frame] = speckle(1, 5)
    detector = FreezeDetector(0.5)
    for clock, expected in ((0.0, 0.0), (1.0, 1.0)):
        assert detector.update(frame, clock) == expected
    assert detector.update(frame[:200], 2.0) == 0
    assert detector.update(frame[:200], 2.6) == pytest.approx(0.6)
    assert detector.update(frame[:200], 0.0) == 0
    assert detector.update(frame[:200], 0.7) == pytest.approx(0.7)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (64, 64, 3), (300, 400), (300, 400, 3)])
def test_frames_of_any_kind(shape: tuple[int, ...]) -> None:
    moving = [np.full(shape, 10 * index, np.uint8) for index in range(20)]
    assert not any(frozen(moving))
    assert any(frozen(moving[:1] * 20))


def test_bad_time() -> None:
    with pytest.raises(BadInput, match="0 s"):
        FreezeDetector(0)


def test_it_costs_microseconds() -> None:
    pictures = speckle(2, 5, (256, 256))
    detector = FreezeDetector()
    times = iter(range(1_000_000))
    runs = timeit.repeat(lambda: detector.update(pictures[next(times) % 2], 0.0), number=200, repeat=5)
    # 10 on an idle machine; here for frames that are compared every time.
    assert min(runs) / 200 < 200e-6


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sonosite-anon-eye1-video.mp4", True),
        ("clarius-ocular-short.mp4", False),
        ("butterfly-ocular-phantom.mp4", False),
    ],
)
def test_real_clips(name: str, expected: bool) -> None:
    found = frozen([item.frame for item, _ in zip(open_frames(CLIPS / name), range(100), strict=False)])
    assert any(found) is expected
    assert all(found[13:]) is expected
