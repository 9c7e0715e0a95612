"""Differences where they hurt most, worked out by hand; what is missing is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeseg.evidence import Parity
from edgeseg.parity import FrameDifference
from edgeseg.strata import EMPTY, EXAM, SMALL, WORST_TENTH, find, missing, strata, worst_tenth

FRAME = FrameDifference(
    "a.png",
    "1",
    agreement=0.999,
    dice_source=0.99,
    diagonal_px=100.0,
    hd95_px=1.0,
    area=0.2,
    source_area=0.2,
    false_positive=0.001,
    area_difference=0.01,
)


def parity(*frames: FrameDifference) -> Parity:
    return Parity("x", len(frames), None, None, 1.0, 1.0, strata=strata(frames, 0.05))


def test_every_stratum_is_there_and_a_missing_one_says_what_was_not_tested() -> None:
    result = parity(replace(FRAME, exam=""))
    assert [s.name for s in result.strata] == [EMPTY, SMALL, WORST_TENTH, EXAM]
    assert [s.frames for s in result.strata] == [0, 0, 1, 0]
    assert missing(result) == [
        "no empty frames in the evaluation data: false positives on empty frames were not tested",
        "no frames with a foreground below 5% of the pixels in the evaluation data: small structures were not tested",
        "no exam ids in the evaluation data (index.csv, exam_id): the worst exam was not tested",
    ]
    assert find(result, EMPTY) is None
    assert find(result, WORST_TENTH) == result.strata[2]


def test_a_frame_is_empty_or_small_by_the_source_s_mask() -> None:
    empty = replace(FRAME, source_area=0.0, area=0.02, false_positive=0.02, area_difference=None, dice_source=0.0)
    small = [replace(FRAME, source_area=share, dice_source=1 - share) for share in (0.01, 0.049)]
    result = parity(FRAME, empty, *small, replace(FRAME, source_area=0.05, area=0.0))
    found = {s.name: s for s in result.strata}
    assert (found[EMPTY].frames, found[EMPTY].false_positive, found[EMPTY].area_difference) == (1, 0.02, None)
    assert found[SMALL].frames == 2
    assert found[SMALL].dice_source == pytest.approx((0.99 + 0.951) / 2)
    assert missing(result) == []


def test_the_worst_tenth_is_the_source_s_where_reference_masks_tell() -> None:
    frames = [
        replace(FRAME, name=str(n), source_dice=0.9 + n / 1000, dice=0.9, dice_source=1 - n / 1000) for n in range(21)
    ]
    assert [f.name for f in worst_tenth(frames)] == ["0", "1", "2"]
    blind = [*frames[:-1], replace(frames[-1], source_dice=None, dice=None)]
    assert [f.name for f in worst_tenth(blind)] == ["20", "19", "18"]
    stratum = find(parity(*frames), WORST_TENTH)
    assert stratum is not None
    assert stratum.dice_drop == pytest.approx(0.001)


def test_the_worst_exam_has_the_worst_mean_of_each_figure_not_the_worst_frame() -> None:
    frames = [
        replace(FRAME, exam="1", dice_source=0.8, hd95_px=9.0),
        replace(FRAME, exam="1", dice_source=1.0, hd95_px=1.0),
        replace(FRAME, exam="2", dice_source=0.88, hd95_px=2.0, dice=0.5, source_dice=0.7),
    ]
    stratum = find(parity(*frames), EXAM)
    assert stratum is not None
    assert (stratum.exam, stratum.exams, stratum.frames) == ("2", 2, 3)
    assert stratum.dice_source == pytest.approx(0.88)
    assert stratum.hd95_px == pytest.approx(5)
    assert stratum.hd95_share == pytest.approx(0.05)
    assert stratum.dice_drop == pytest.approx(0.2)


def test_where_the_source_itself_fails_its_artifact_is_not_measured_by_it() -> None:
    lost = replace(FRAME, exam="2", source_area=0.01, truth_area=0.2, source_dice=0.1, dice=0.05, dice_source=0.3)
    right = replace(FRAME, source_dice=0.98, dice=0.98, truth_area=0.2)
    found = {s.name: s for s in parity(right, lost).strata}
    assert found[SMALL].frames == 0  # the structure is large, the source missed it
    assert found[WORST_TENTH].dice_source == found[EXAM].dice_source == 0.99
    assert found[EXAM].exams == 1


def test_a_frame_is_small_by_its_reference_mask() -> None:
    small = replace(FRAME, source_area=0.06, truth_area=0.04, source_dice=0.8, dice=0.8)
    assert {s.name: s.frames for s in parity(FRAME, small).strata}[SMALL] == 1
