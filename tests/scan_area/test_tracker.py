"""The scan area over a stream: found once, then held."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.frames import open_frames
from edgeseg.scan_area import AreaTracker, find_area, whole
from edgeseg.types import Box, Frame, Mask, ScanArea

Shared = Callable[[str], Path]
Screen = Callable[..., tuple[Frame, Box]]
Overlap = Callable[[Box, Box], float]
DETECT = ScanArea(detect=True)


def edges(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.left + box.width, box.top + box.height


def test_the_tracker_holds_the_area_still_over_a_clip(shared: Shared, overlap: Overlap) -> None:
    with open_frames(shared("pocus_cine_itkpocus/butterfly-ocular-phantom.mp4")) as source:
        tracker = AreaTracker(DETECT)
        areas = [tracker.area(item.frame) for item in itertools.islice(source, 120)]
    assert len(set(areas[8:])) == 1
    for before, after in itertools.pairwise(areas):
        a, b = edges(before), edges(after)
        assert b[0] <= a[0], "it only grows"
        assert b[1] <= a[1]
        assert b[2] >= a[2]
        assert b[3] >= a[3]


def test_the_tracker_starts_anew_with_another_size_and_on_request(
    screen: Screen, heads: list[tuple[Frame, Mask]], overlap: Overlap
) -> None:
    frame = heads[0][0]
    picture, box = screen(frame)
    moved, other = screen(frame, left=60, top=300)
    tracker = AreaTracker(DETECT)
    for _ in range(10):
        held = tracker.area(picture)
    assert overlap(held, box) > 0.85
    assert tracker.area(moved) == held, "the same size: the area stays"
    tracker.reset()
    assert overlap(tracker.area(moved), other) > 0.85
    small = np.ascontiguousarray(picture[::2, ::2])
    assert overlap(tracker.area(small), Box(box.left // 2, box.top // 2, box.width // 2, box.height // 2)) > 0.8


def test_the_tracker_waits_for_a_field(screen: Screen, heads: list[tuple[Frame, Mask]], overlap: Overlap) -> None:
    dark = np.zeros((960, 1280, 3), np.uint8)
    picture, box = screen(heads[0][0])
    tracker = AreaTracker(DETECT)
    for _ in range(40):
        assert tracker.area(dark) == whole(dark)
    areas = [tracker.area(picture) for _ in range(16)]
    assert overlap(areas[-1], box) > 0.85
    assert tracker.area(dark) == areas[-1], "a probe in the air changes nothing"


def test_a_fixed_area_follows_the_size_of_the_frame() -> None:
    tracker = AreaTracker(ScanArea(False, 0.5, 0.0, 0.5, 1.0))
    assert tracker.area(np.zeros((10, 20), np.uint8)) == Box(10, 0, 10, 10)
    assert tracker.area(np.zeros((6, 8, 3), np.uint8)) == Box(4, 0, 4, 6)


@pytest.mark.parametrize("area", [DETECT, ScanArea(False, 0.5, 0.0, 0.5, 1.0)])
@pytest.mark.parametrize(
    "frame",
    ["frame", np.zeros((4, 4)), *(np.zeros(shape, np.uint8) for shape in ((4, 4, 4), (4,), (0, 4), (1, 40_000)))],
)
def test_what_is_no_frame_is_said_to_be_none(frame: Frame, area: ScanArea) -> None:
    with pytest.raises(BadInput, match=r"^frame "):
        AreaTracker(area).area(frame)
    with pytest.raises(BadInput, match=r"^frame "):
        find_area(frame, area)
