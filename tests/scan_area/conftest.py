"""Real frames, and screens of an ultrasound machine around them: text, rulers, panels, a redaction box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg import samples
from edgeseg.dataset import read_folder
from edgeseg.types import Array, Box, Frame, Mask

DATA = Path(__file__).parents[2] / "../shared/data"

SIZE = (960, 1280)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """The path of a file of the shared data; the test is skipped where that is not there."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"shared data without {name}")
        return DATA / name

    return find


@pytest.fixture(scope="session")
def heads() -> list[tuple[Frame, Mask]]:
    """The embedded frames, 540 x 800 gray, with the masks of their heads."""
    found = read_folder(samples.FRAMES).samples
    return [(sample.read_frame(), sample.read_mask()) for sample in found]


@pytest.fixture(scope="session")
def screen() -> Callable[..., tuple[Frame, Box]]:
    """Make a screen [960, 1280] or [960, 1280, 3] with a gray frame in it, and say where that lies."""
    return make_screen


@pytest.fixture(scope="session")
def on_screen() -> Callable[[Array, Box], Array]:
    """Make a mask of the frame one of the screen."""
    return to_screen


@pytest.fixture(scope="session")
def overlap() -> Callable[[Box, Box], float]:
    """Intersection over union of two boxes."""
    return intersection_over_union


def intersection_over_union(a: Box, b: Box) -> float:
    right, bottom = min(a.left + a.width, b.left + b.width), min(a.top + a.height, b.top + b.height)
    both = max(0, right - max(a.left, b.left)) * max(0, bottom - max(a.top, b.top))
    return both / (a.width * a.height + b.width * b.height - both)


def make_screen(frame: Frame, *, left: int = 250, top: int = 130, colour: bool = True) -> tuple[Frame, Box]:
    picture = np.zeros((*SIZE, 3), np.uint8)
    height, width = frame.shape
    picture[top : top + height, left : left + width] = frame[..., None]
    picture[:70] = (40, 50, 90)
    picture[60:900, 1180:1260] = np.linspace(90, 110, 840, dtype=np.uint8)[:, None, None]
    for row, line in enumerate(("General Hospital", "MI 0.9  TIs 0.2", "Fetal head 12 Hz", "Gain 62  Depth 16 cm")):
        cv2.putText(picture, line, (20, 30 + 26 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    cv2.putText(picture, "Dist 1: 4.31 cm", (500, 940), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (250, 250, 120), 2)
    cv2.rectangle(picture, (20, 880), (200, 940), (255, 255, 255), -1)
    cv2.circle(picture, (220, 150), 12, (0, 180, 255), -1)
    for y in range(130, 680, 25):
        cv2.line(picture, (1090, y), (1100 + 10 * (y % 125 == 5), y), (255, 255, 255), 2)
    return (picture if colour else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)), Box(left, top, width, height)  # type: ignore[return-value]


def to_screen(mask: Array, box: Box) -> Array:
    whole = np.zeros(SIZE, mask.dtype)
    whole[box.top : box.top + box.height, box.left : box.left + box.width] = mask
    return whole
