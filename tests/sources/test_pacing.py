from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.frame_source import FrameItem, FrameSource
from edgeseg.frames import open_frames
from edgeseg.sources import open_source, paced

CloseWhileRead = Callable[[FrameSource], list[FrameItem]]


def folder(path: Path, count: int = 5) -> Path:
    for value in range(count):
        cv2.imwrite(str(path / f"f{value}.png"), np.full((8, 8), 10 * value, np.uint8))
    return path


def clip(path: Path, count: int = 6, rate_hz: float = 50) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate_hz, (64, 48))
    for value in range(count):
        writer.write(np.full((48, 64, 3), 5 * value, np.uint8))
    writer.release()
    return path


def test_frames_come_at_their_due_times_without_drift(tmp_path: Path) -> None:
    with paced(open_frames(folder(tmp_path, 20)), 50) as source:
        assert (source.live, source.rate_hz, source.length) == (True, 50, 20)
        arrivals = [(item.captured_s, time.monotonic()) for item in source]
    due = np.array([captured for captured, _ in arrivals])
    assert all(now >= captured for captured, now in arrivals)  # type: ignore[operator]
    # On one grid: a due time may be passed over on a busy machine, but none lies between two.
    slots = (due - due[0]) * 50
    assert np.abs(slots - np.rint(slots)).max() < 1e-6
    assert slots[-1] == pytest.approx(19 + source.skipped)


def test_a_reader_that_comes_late_gets_one_frame_at_once_and_no_burst(tmp_path: Path) -> None:
    with paced(open_frames(folder(tmp_path, 8)), 20) as source:
        next(source)
        time.sleep(0.33)  # six due times
        late_s = time.monotonic()
        second = next(source)
        skipped = source.skipped
        third = next(source)
        third_s = time.monotonic()
    assert skipped >= 5
    # The second was due when it was asked for, by less than a period; the third came no sooner than it was due.
    assert late_s - 0.05 - 1e-6 < second.captured_s  # type: ignore[operator]
    assert third_s >= third.captured_s >= second.captured_s + 0.05 - 1e-6  # type: ignore[operator]
    # Nothing of the file is left out.
    assert [int(i.frame[0, 0]) for i in (second, third)] == [10, 20]


@pytest.mark.parametrize("kind", ["folder", "clip", "image"])
def test_looping_starts_over_with_names_and_indices_of_its_own(tmp_path: Path, kind: str) -> None:
    if kind == "clip":
        path, count = clip(tmp_path / "c.avi"), 6
    else:
        path, count = folder(tmp_path, 3), 3
        path, count = (path / "f1.png", 1) if kind == "image" else (path, count)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_source(path, rate_hz=500, loop=True) as source:
        assert source.length is None
        items = [next(source) for _ in range(3 * count)]
    assert [i.index for i in items] == list(range(3 * count))
    assert len({i.name for i in items}) == 3 * count
    assert items[count].name == f"{items[0].name}-r1"
    assert np.array_equal(items[0].frame, items[2 * count].frame)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_clip_loops_at_its_own_rate_and_a_folder_has_none(tmp_path: Path) -> None:
    with open_source(str(clip(tmp_path / "c.avi")), loop=True) as source:
        assert source.rate_hz == pytest.approx(50)
        assert len([next(source) for _ in range(8)]) == 8
    (tmp_path / "f").mkdir()
    with pytest.raises(BadInput, match="no rate of its own, expected one to loop at"):
        open_source(folder(tmp_path / "f"), loop=True)


def test_a_clip_that_ends_early_ends_badly_and_is_not_looped(tmp_path: Path) -> None:
    path = clip(tmp_path / "cut.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(path, rate_hz=1000, loop=True) as source, pytest.raises(BadInput, match="of 40 frames"):
        list(source)


def test_closing_ends_a_reader_that_waits(tmp_path: Path, close_while_read: CloseWhileRead) -> None:
    source = open_source(folder(tmp_path), rate_hz=0.1)
    next(source)
    assert close_while_read(source) == []


def test_a_live_source_keeps_its_own_capture_times(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(12)) * 4)
    with open_source(f"pipe:{tmp_path}/raw?width=4&height=3", rate_hz=20) as source:
        start_s = time.monotonic()
        times = [item.captured_s for item in source]
    assert len(times) == 4
    assert times[3] - start_s > 0.1  # type: ignore[operator]
    with pytest.raises(BadInput, match="cannot be read again from its start"):
        open_source(f"pipe:{tmp_path}/raw?width=4&height=3", rate_hz=20, loop=True)


@pytest.mark.parametrize("rate_hz", [0, -1, float("nan"), float("inf"), 20_000])
def test_rates_that_are_none(tmp_path: Path, rate_hz: float) -> None:
    with pytest.raises(BadInput, match="the rate is"):
        paced(open_frames(folder(tmp_path)), rate_hz)


def test_a_paced_source_can_be_opened_again(tmp_path: Path) -> None:
    source: FrameSource = paced(open_frames(folder(tmp_path)), 1000)
    assert len(list(source)) == 5
    again = source.reopen()
    assert len(list(again)) == 5
    for one in (source, again):
        one.close()
