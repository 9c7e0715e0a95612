"""The gates, one by one on figures made by hand, and all of them on real frames with a fault put in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg import samples
from edgeseg.converters.source import Source, load_source
from edgeseg.dataset import read_folder, read_pair
from edgeseg.evidence import Gates, Parity, Stratum
from edgeseg.gates import failed_gate, failed_task_gate, failures, judge, judge_task
from edgeseg.parity import Comparison, ReferenceFrame, reference_frame
from edgeseg.preprocess import to_input, to_mask
from edgeseg.types import Frame, Precision

STRATA = (
    Stratum("empty", 4, false_positive=0.0),
    Stratum("small", 4, dice_source=0.99),
    Stratum("worst-tenth", 4, dice_source=0.99),
    Stratum("exam", 40, dice_source=0.99, dice_drop=0.01, exams=10, exam="7"),
)
GOOD = Parity(
    *("fake", 40, 1e-4, 40.0, 0.999, 0.99, 0.97, 0.001),
    hc_increase_mm=0.0,
    hc_difference_mm=0.1,
    hd95_share=0.001,
    area_difference=0.002,
    shift_share=0.0001,
    worst_dice=0.9,
    worst_dice_source=0.9,
    strata=STRATA,
)


def with_stratum(name: str, **figures: Any) -> tuple[Stratum, ...]:
    return tuple(replace(s, **figures) if s.name == name else s for s in STRATA)


def bad(limit: str) -> dict[str, Any]:
    """What makes GOOD fail this gate alone."""
    changes: dict[str, dict[str, Any]] = {
        "logit_error_max": {"logit_error": 2e-3},
        "agreement_min": {"agreement": 0.99},
        "sqnr_db_min": {"sqnr_db": 19.9},
        "hd95_max": {"hd95_share": 0.011},
        "area_difference_max": {"area_difference": 0.011},
        "shift_max": {"shift_share": 0.0006},
        "hc_difference_max_mm": {"hc_difference_mm": 0.6},
        "small_dice_source_min": {"strata": with_stratum("small", dice_source=0.89)},
        "worst_tenth_dice_source_min": {"strata": with_stratum("worst-tenth", dice_source=0.96)},
        "exam_dice_source_min": {"strata": with_stratum("exam", dice_source=0.89)},
        "dice_drop_max": {"dice_drop": 0.006},
        "hc_increase_max_mm": {"hc_increase_mm": 0.31},
        "worst_dice_min": {"worst_dice": 0.8},
        "exam_dice_drop_max": {"strata": with_stratum("exam", dice_drop=0.11)},
        "empty_false_positive_max": {"strata": with_stratum("empty", false_positive=0.002)},
    }
    return changes[limit]


LIMITS = [f.name for f in fields(Gates) if f.name != "small_share"]


def test_every_limit_is_a_gate_and_a_good_artifact_passes_all() -> None:
    judged = judge(GOOD, Gates(), Precision.FP32)
    assert sorted(j.gate for j in judged) == sorted(LIMITS)
    assert all(j.passed for j in judged)
    assert all(j.limit == getattr(Gates(), j.gate) for j in judged)
    assert failed_gate(GOOD, Gates(), Precision.FP32) is None


@pytest.mark.parametrize("limit", LIMITS)
def test_each_gate_fails_alone_says_value_and_limit_and_can_be_off(limit: str) -> None:
    parity = replace(GOOD, **bad(limit))
    judged = judge(parity, Gates(), Precision.FP32)
    (failed,) = (j for j in judged if j.passed is False)
    assert failed.gate == limit
    (reason,) = failures(judged)
    assert reason == failed_gate(parity, Gates(), Precision.FP32)
    assert reason.startswith(failed.name)
    assert reason.endswith(f"= {getattr(Gates(), limit):g}")
    assert failed_gate(parity, replace(Gates(), **{limit: None}), Precision.FP32) is None


def test_all_failed_gates_are_told_and_nan_fails() -> None:
    parity = replace(GOOD, agreement=math.nan, hd95_share=math.nan, shift_share=0.01)
    assert failures(judge(parity, Gates(), Precision.INT8)) == (
        "mask agreement nan, gate >= 0.995",
        "displacement of the masks over the diagonal 0.01000, gate <= 0.0005",
        "HD95 over the diagonal nan, gate <= 0.01",
    )


def test_what_was_not_measured_is_no_failure_and_no_pass() -> None:
    old = Parity("fake", 3, 1e-4, 40.0, 0.999, 0.99)
    judged = {j.gate: j.passed for j in judge(old, Gates(), Precision.INT8)}
    assert {gate for gate, passed in judged.items() if passed} == {"agreement_min", "sqnr_db_min"}
    assert {passed for gate, passed in judged.items() if gate not in ("agreement_min", "sqnr_db_min")} == {None}


def test_a_circumference_is_a_head_s_only_where_there_is_a_reference() -> None:
    assert failed_gate(replace(GOOD, hc_difference_mm=3.0, hc_increase_mm=None), Gates(), Precision.INT8) is None


def test_another_network_is_held_to_the_task_alone() -> None:
    other = replace(GOOD, agreement=0.9, hd95_share=0.1, area_difference=0.1, shift_share=0.1, hc_difference_mm=2.0)
    assert failed_task_gate(other, Gates()) is None
    assert {j.gate for j in judge_task(GOOD, Gates())} == set(LIMITS[LIMITS.index("dice_drop_max") :])
    assert failed_task_gate(replace(other, **bad("exam_dice_drop_max")), Gates()) == (
        "Dice drop of the worst exam 0.1100, gate <= 0.1"
    )


@pytest.fixture(scope="module")
def student() -> Source:
    return load_source(str(samples.STUDENT))


@pytest.fixture(scope="module")
def references(student: Source) -> list[ReferenceFrame]:
    found = []
    for sample in read_folder(samples.FRAMES).samples:
        frame, truth = read_pair(sample, 2)
        found.append(reference_frame(frame, truth, student.preprocess, student.run, sample))
    return found


def half_pixel(frame: Frame) -> Frame:
    """Moved by half a pixel of a 256x256 input, as a resize that takes corners for centres does at this size."""
    height, width = frame.shape
    move = np.array([[1, 0, (width / 256 - 1) / 2], [0, 1, (height / 256 - 1) / 2]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, move, (width, height), flags=flags)  # type: ignore[return-value]


def same(array: np.ndarray) -> np.ndarray:
    return array


@pytest.mark.parametrize(
    ("on_frame", "on_pixels", "on_mask", "expected"),
    [
        (same, same, same, set()),
        (half_pixel, same, same, {"logit_error_max", "shift_max"}),
        (same, lambda p: p * np.float32(0.9), same, {"logit_error_max"}),
        (
            same,
            lambda p: np.ascontiguousarray(p.transpose(0, 1, 3, 2)),
            same,
            {"agreement_min", "sqnr_db_min", "hd95_max"},
        ),
        (same, same, lambda m: np.ascontiguousarray(m[:, ::-1]), {"agreement_min", "hd95_max", "shift_max"}),
    ],
    ids=["none", "half a pixel", "wrong scale", "transposed", "flipped mask"],
)
def test_faults_of_a_deployment_on_real_frames(
    student: Source,
    references: list[ReferenceFrame],
    on_frame: Callable[[Frame], Frame],
    on_pixels: Callable[[np.ndarray], np.ndarray],
    on_mask: Callable[[np.ndarray], np.ndarray],
    expected: set[str],
) -> None:
    comparison = Comparison()
    for reference in references:
        logits = student.run(on_pixels(to_input(on_frame(reference.frame), student.preprocess)))
        comparison.add(reference, logits, on_mask(to_mask(logits, reference.frame.shape)))
    parity = comparison.parity("torch")
    failed = {j.gate for j in judge(parity, Gates(), Precision.FP32) if j.passed is False}
    assert failed >= expected
    if len(expected) < 3:
        # The subtle ones: Dice against the reference masks does not notice.
        assert failed == expected
        assert failed_task_gate(parity, Gates()) is None


def test_a_source_that_just_reaches_the_worst_frame_s_limit_leaves_room_for_rounding() -> None:
    def verdict(worst: float, source: float) -> bool | None:
        parity = replace(GOOD, worst_dice=worst, worst_dice_source=source)
        return next(j.passed for j in judge_task(parity, Gates()) if j.gate == "worst_dice_min")

    assert verdict(0.848, 0.851)
    assert not verdict(0.83, 0.851)
    assert not verdict(0.848, 0.9)
    assert verdict(0.5, 0.6) is None
