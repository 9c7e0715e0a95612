from __future__ import annotations

import subprocess
import sys
import timeit
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.frames import open_frames, read_image
from edgeseg.overlay import COLOURS, ClipWriter, draw, draw_confidence, write_image


def mask_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((80, 120), np.uint8)
    for label, (top, bottom, left, right) in enumerate(boxes, start=1):
        mask[top:bottom, left:right] = label
    return mask


@pytest.mark.parametrize("shape", [(80, 120), (80, 120, 3)])
def test_every_class_is_filled_and_outlined_and_the_rest_untouched(shape: tuple[int, ...]) -> None:
    frame = np.full(shape, 100, np.uint8)
    mask = mask_of((10, 40, 10, 50), (10, 70, 70, 110))
    picture = draw(frame, mask, opacity=0.5)
    assert picture.shape == (80, 120, 3)
    assert (frame == 100).all()
    for label, inside, edge in ((1, (25, 30), (10, 30)), (2, (40, 90), (40, 70))):
        blend = (np.array(COLOURS[label - 1]) + 100) / 2
        assert np.abs(picture[inside] - blend).max() <= 1
        assert np.abs(picture[edge].astype(int) - COLOURS[label - 1]).max() <= 16  # smoothed
    far = cv2.dilate((mask > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    assert (picture[far] == 100).all()


def test_colours_stay_apart_for_the_colour_blind() -> None:
    # Machado, Oliveira and Fernandes (2009), full deuteranopia, on linear RGB.
    deutan = np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]])
    linear = (np.array(COLOURS) / 255) ** 2.2
    seen = np.clip(linear @ deutan.T, 0, 1) ** (1 / 2.2) * 255
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 25


def test_an_empty_mask_changes_nothing_and_text_only_the_bottom() -> None:
    frame = np.full((200, 300), 60, np.uint8)
    empty = np.zeros((200, 300), np.uint8)
    assert (draw(frame, empty) == 60).all()
    picture = draw(frame, empty, text="head 12.3 cm2 ü\n")
    assert (picture[:150] == 60).all()
    assert (picture[150:] > 150).any()


def test_a_stale_mask_has_gray_dashes_no_fill_and_a_band() -> None:
    frame = np.full((400, 600, 3), 60, np.uint8)
    mask = np.zeros((400, 600), np.uint8)
    cv2.circle(mask, (300, 220), 100, 1, -1)
    picture = draw(frame, mask, stale="stale, 120 ms old")
    assert (picture[0] == COLOURS[1]).all()
    assert (picture[:20] < 40).any()  # black letters
    body = picture[40:]
    assert (np.ptp(body, axis=2) == 0).all()  # gray
    assert (picture[220, 300] == 60).all()
    ring = body[(mask > cv2.erode(mask, np.ones((3, 3), np.uint8)))[40:]][:, 0]
    assert 0.3 < np.mean(ring > 120) < 0.8
    assert draw(frame, mask)[220, 300].tolist() != [60, 60, 60]


@pytest.mark.parametrize("shape", [(80, 120), (80, 120, 3)])
def test_confidence_tints_by_how_sure_it_is(shape: tuple[int, ...]) -> None:
    frame = np.full(shape, 100, np.uint8)
    confidence = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (80, 1))
    confidence[:, :20] = 0
    picture = draw_confidence(frame, confidence)
    assert (frame == 100).all()
    assert (picture[:, :20] == 100).all()
    away = np.abs(picture[0].astype(int) - 100).sum(1)
    assert away[119] > 100
    assert away[60] < away[119]
    red, _, blue = picture[0, 119].astype(int)
    assert red > blue + 80  # yellow
    assert (draw_confidence(frame, confidence, opacity=0) == 100).all()
    for wrong in (confidence.T, confidence.astype(np.float64)):
        with pytest.raises(BadInput, match="confidence has"):
            draw_confidence(frame, wrong)


def test_drawing_keeps_up_with_a_live_view() -> None:
    # A third of a period at 30 Hz, where a machine with nothing else to do takes a thirtieth.
    frame = np.full((540, 800), 60, np.uint8)
    mask = np.zeros((540, 800), np.uint8)
    cv2.ellipse(mask, (400, 270), (300, 220), 20, 0, 360, 1, -1)
    assert min(timeit.repeat(lambda: draw(frame, mask, text="head 207.3 cm2"), number=1, repeat=50)) < 0.011


@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("stale", [None, "no answer"])
def test_tiny_frames(side: int, stale: str | None) -> None:
    frame, mask = np.zeros((side, side), np.uint8), np.ones((side, side), np.uint8)
    for picture in (
        draw(frame, mask, text="does not fit", stale=stale),
        draw_confidence(frame, mask.astype(np.float32)),
    ):
        assert picture.shape == (side, side, 3)
        assert picture.any()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(BadInput, match="mask has shape"):
        draw(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))
    with pytest.raises(BadInput, match="float64"):
        draw(np.zeros((4, 4)), np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_images_survive_writing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "x.png", image)
    write_image(tmp_path / "x.png", image)
    assert np.array_equal(read_image(tmp_path / "x.png"), image)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    image = np.zeros((4, 4), np.uint8)
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "none" / "x.png", tmp_path / "folder.png", Path("/proc/x.png")):
        with pytest.raises(BadInput, match=f"{path} cannot be written"):
            write_image(path, image)
    with pytest.raises(BadInput, match="expected a suffix"):
        write_image(tmp_path / "x.xyz", image)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
@pytest.mark.parametrize("rate_hz", [0.05, 1 / 3, 23.976, 1000 / 33, 1000 / 15, 1000 / 12, 500.5, 1000 / 1.7])
def test_clips_of_any_rate_that_a_device_gives(tmp_path: Path, suffix: str, rate_hz: float) -> None:
    """Frame times in whole milliseconds are no whole rates, and MPEG-4 has 16 bits for their fractions."""
    with ClipWriter(tmp_path / f"c.{suffix}", rate_hz) as clip:
        for _ in range(3):
            clip.write(np.zeros((48, 64, 3), np.uint8))
    with open_frames(clip.path) as source:
        assert source.rate_hz == pytest.approx(rate_hz, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
@pytest.mark.parametrize("shape", [(48, 64), (47, 63), (1, 1)])
def test_clips_keep_frames_rate_and_odd_sides(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    path = tmp_path / f"c.{suffix}"
    with ClipWriter(path, 12.5) as clip:
        for _ in range(5):
            clip.write(np.full((*shape, 3), (200, 50, 0), np.uint8))
        assert not path.exists()
    with open_frames(path) as source:
        frames = [i.frame for i in source]
        assert source.rate_hz == pytest.approx(12.5, rel=0.05)
    assert len(frames) == 5
    assert frames[0].shape[:2] == tuple(side + side % 2 for side in shape)
    assert np.abs(frames[0][0, 0].astype(int) - (200, 50, 0)).max() < 12


def write_two_sizes(path: Path) -> None:
    with ClipWriter(path, 10) as clip:
        clip.write(np.zeros((48, 64, 3), np.uint8))
        clip.write(np.zeros((64, 48, 3), np.uint8))


def test_a_clip_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="frames of several sizes"):
        write_two_sizes(tmp_path / "c.mp4")
    with ClipWriter(tmp_path / "empty.mp4", 10):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match="is no clip"):
        ClipWriter(tmp_path / "c.gif", 10)
    with pytest.raises(BadInput, match="cannot be written: No such file"):
        ClipWriter(tmp_path / "none" / "c.mp4", 10)


def test_a_full_disk_is_noticed(tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk; in a process of its own, for the limit stays.
    code = f"""
import resource, signal
import numpy as np
from edgeseg.overlay import ClipWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = np.random.default_rng(0)
try:
    with ClipWriter({str(tmp_path / "c.avi")!r}, 10) as clip:
        for _ in range(20):
            clip.write(noise.integers(0, 256, (240, 320, 3), np.uint8))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "c.avi is incomplete" in done.stdout
    assert list(tmp_path.iterdir()) == []
