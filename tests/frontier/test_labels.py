"""Labels keep clear of each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from edgeseg.frontier.labels import Box, Label, place

PANEL = Box(0, 0, 600, 400)


def crowd(count: int, spread: float) -> tuple[list[Label], list[Box]]:
    centres = np.random.default_rng(0).normal((300, 200), spread, (count, 2)).clip(10, 390)
    labels = [Label(float(x), float(y), 8, 70, 12) for x, y in centres]
    return labels, [Box(m.x - 7, m.y - 7, m.x + 7, m.y + 7) for m in labels]


def test_labels_overlap_neither_each_other_nor_markers() -> None:
    labels, markers = crowd(14, 60)
    boxes = [b for b in place(labels, markers, [], PANEL) if b is not None]
    assert len(boxes) == 14
    assert not any(a.overlaps(b) for a, b in combinations([*boxes, *markers], 2) if not (a in markers and b in markers))
    assert all(b.inside(PANEL) for b in boxes)


def test_where_there_is_no_room_the_first_are_served() -> None:
    labels, markers = crowd(60, 5)
    boxes = place(labels, markers, [], PANEL)
    assert boxes[0] is not None
    assert boxes.count(None) > 0
    placed = [b for b in boxes if b is not None]
    assert not any(a.overlaps(b) for a, b in combinations(placed, 2))


def test_a_lone_label_stands_beside_its_marker_and_not_on_a_line() -> None:
    label = Label(100, 100, 8, 60, 12)
    (free,) = place([label], [], [], PANEL)
    assert free == Box(108, 94, 168, 106)
    (moved,) = place([label], [], [(x, 100.0) for x in range(0, 600, 5)], PANEL)
    assert moved is not None
    assert not moved.bottom < 100 < moved.top


def test_a_label_stays_inside_at_the_edge() -> None:
    (box,) = place([Label(595, 395, 8, 60, 12)], [], [], PANEL)
    assert box is not None
    assert box.inside(PANEL)
