"""Where labels go so that they overlap neither each other nor the markers. Plain geometry, in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_DISTANCES = (0, 6, 14, 24, 36, 50, 66, 84)
_DIRECTIONS = 16
_CROSSED = 8.0  # what a label that hides a point of a line costs, in pixels of distance
_BESIDE = 20.0  # what a label costs that could be taken for that of another marker
_NEAR = 8.0  # pixels


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def inside(self, other: Box) -> bool:
        """Whether this lies in the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )

    def grown(self, by: float) -> Box:
        """This with a margin."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in this."""
        return self.left < x < self.right and self.bottom < y < self.top


@dataclass(frozen=True, slots=True)
class Label:
    """What is to be placed: the marker's centre and half its size, the text's size, and how far away it may be."""

    x: float
    y: float
    radius: float
    width: float
    height: float
    reach: float = max(_DISTANCES)


def place(
    labels: Sequence[Label], obstacles: Sequence[Box], lines: Sequence[tuple[float, float]], bounds: Box
) -> list[Box | None]:
    """A box for each label, the first ones served first; None where there is no room near its marker.

    Args:
        labels: the most important first.
        obstacles: what no label may touch, such as markers.
        lines: points on lines that labels had better not hide.
        bounds: what no label may leave.
    """
    taken = list(obstacles)
    placed: list[Box | None] = []
    for label in labels:
        others = [box.grown(_NEAR) for box in obstacles if not box.holds(label.x, label.y)]
        free = (
            (cost + _cost(box, lines, others), index, box)
            for index, (cost, box) in enumerate(_around(label))
            if cost <= label.reach and box.inside(bounds) and not any(box.overlaps(other) for other in taken)
        )
        best = min(free, default=None, key=lambda found: found[:2])
        placed.append(best[2] if best else None)
        if best:
            taken.append(best[2])
    return placed


def _cost(box: Box, lines: Sequence[tuple[float, float]], others: Sequence[Box]) -> float:
    return _CROSSED * sum(box.holds(*point) for point in lines) + _BESIDE * any(box.overlaps(o) for o in others)


def _around(label: Label) -> Iterator[tuple[float, Box]]:
    """Boxes around a marker with what their distance costs; right of it first."""
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            turn = (step + 1) // 2 * (-1) ** step * 2 * math.pi / _DIRECTIONS
            along, up = math.cos(turn), math.sin(turn)
            reach = label.radius + distance
            x = label.x + along * reach + (along - 1) / 2 * label.width
            y = label.y + up * reach + (up - 1) / 2 * label.height
            yield distance, Box(x, y, x + label.width, y + label.height)
