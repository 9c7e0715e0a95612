"""Differences from the source, and the gates on them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edgeseg import metrics
from edgeseg.dataset import Sample
from edgeseg.errors import BadInput
from edgeseg.evidence import Gates, Parity
from edgeseg.gates import failed_gate, failed_task_gate
from edgeseg.parity import (
    Comparison,
    ReferenceFrame,
    compare,
    nchw_runner,
    reference_frame,
)
from edgeseg.types import Layout, Precision, Preprocess, TensorSpec

PREPROCESS = Preprocess(4, 4)
GOOD = Parity("fake", 3, 1e-4, 40.0, 0.999, 0.99, 0.97, 0.001)


def frame(bright: int) -> np.ndarray:
    image = np.zeros((4, 4), np.uint8)
    image.flat[:bright] = 255
    return image


def source(pixels: np.ndarray) -> np.ndarray:
    return pixels / 255 * 4 - 2


def test_an_equal_artifact_has_no_difference() -> None:
    references = [reference_frame(frame(n), frame(n) // 255, PREPROCESS, source) for n in (3, 8)]
    parity = compare(references, PREPROCESS, source, "fake")
    want = Parity("fake", 2, 0.0, 200.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, strata=parity.strata)
    nothing = {"hd95_px": 0.0, "hd95_share": 0.0, "one_empty": 0, "area_difference": 0.0}
    assert parity == replace(want, **nothing, shift_px=0.0, shift_share=0.0)  # type: ignore[arg-type]


def test_differences_by_hand() -> None:
    references = [reference_frame(frame(8), frame(n) // 255, PREPROCESS, source) for n in (4, 8)]
    calls = iter([0.0, 0.4])

    def off(pixels: np.ndarray) -> np.ndarray:
        return source(pixels) + np.float32(next(calls))

    parity = compare(references, PREPROCESS, off, "x")
    assert parity.logit_error == pytest.approx(0.1)  # 0.4 of a range of 4, of the worse frame
    assert parity.sqnr_db == pytest.approx(10 * math.log10(32 * 4 / (16 * 0.16)))
    assert parity.agreement == 1
    assert parity.dice == pytest.approx((2 * 4 / (8 + 4) + 1) / 2)
    assert parity.dice_drop == pytest.approx(0)
    assert parity.worst_dice == parity.worst_dice_source == pytest.approx(2 * 4 / (8 + 4))


def disc(radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((100, 100), np.uint8), (50, 50), radius, 1, -1)


def test_the_circumference_error_is_the_source_s_minus_the_artifact_s() -> None:
    sample = Sample("a.png", Path("a.png"), None, pixel_size_mm=0.5, hc_mm_reference=2 * math.pi * 40 * 0.5)
    logits = np.zeros((1, 1, 4, 4), np.float32)
    reference = ReferenceFrame(disc(40), logits, disc(39), disc(40), sample)
    comparison = Comparison()
    comparison.add(reference, logits, disc(36))
    parity = comparison.parity("x")
    assert parity.hc_increase_mm == pytest.approx(3 * 2 * math.pi * 0.5, rel=0.05)
    assert failed_task_gate(parity, Gates(dice_drop_max=None)) == (
        f"head circumference error increase in mm {parity.hc_increase_mm:.2f}, gate <= 0.3"
    )


def test_a_frame_that_the_source_itself_loses_is_no_gate() -> None:
    bad = replace(GOOD, worst_dice=0.5, worst_dice_source=0.9)
    assert failed_gate(bad, Gates(), Precision.INT8) == "worst frame's Dice 0.500, gate >= 0.85"
    assert failed_gate(replace(bad, worst_dice_source=0.6), Gates(), Precision.INT8) is None


def logits_of(mask: np.ndarray) -> np.ndarray:
    return np.full((1, 1, *mask.shape), 2.0, np.float32)


def compared(*pairs: tuple[np.ndarray, np.ndarray], truth: np.ndarray | None = None, **sample: Any) -> Comparison:
    """A comparison of pairs of (artifact's mask, source's mask)."""
    comparison = Comparison()
    for number, (mask, source_mask) in enumerate(pairs):
        name = f"{number}.png"
        place = Sample(name, Path(name), None, exam=f"exam {number // 2}", **sample)
        logits = logits_of(mask)
        comparison.add(ReferenceFrame(mask, logits, source_mask, truth, place), logits, mask)
    return comparison


def test_a_moved_mask_keeps_its_area_and_shows_in_displacement_and_hd95() -> None:
    moved = np.roll(disc(20), (3, 4), (0, 1))
    comparison = compared((moved, disc(20)), (moved, disc(20)), pixel_size_mm=0.5)
    parity = comparison.parity("x")
    assert parity.area_difference == parity.area_difference_mm2 == 0
    assert parity.shift_px == pytest.approx(5)
    assert parity.shift_share == pytest.approx(5 / math.hypot(100, 100))
    assert 4 <= (parity.hd95_px or 0) <= 5
    assert parity.hd95_mm == pytest.approx(0.5 * (parity.hd95_px or 0))
    assert parity.hd95_share == pytest.approx((parity.hd95_px or 0) / math.hypot(100, 100))
    assert parity.hc_difference_mm == pytest.approx(0, abs=1e-6)
    assert parity.hc_increase_mm is None  # no reference circumference


def test_a_smaller_mask_shows_in_area_and_circumference_without_any_reference() -> None:
    small, large = disc(20), disc(24)
    parity = compared((small, large), pixel_size_mm=0.5).parity("x")
    lost = int(large.sum()) - int(small.sum())
    assert parity.area_difference == pytest.approx(lost / large.sum())
    assert parity.area_difference_mm2 == pytest.approx(lost * 0.25)
    assert parity.hc_difference_mm == pytest.approx(4 * 2 * math.pi * 0.5, rel=0.05)
    assert compared((small, large)).parity("x").area_difference_mm2 is None


def test_a_mask_that_only_one_of_the_two_has_counts_with_the_diagonal_and_is_counted() -> None:
    nothing = np.zeros((100, 100), np.uint8)
    comparison = compared((nothing, disc(20)), (disc(10), nothing), (nothing, nothing), pixel_size_mm=1.0)
    parity = comparison.parity("x")
    assert parity.one_empty == 2
    assert parity.hd95_px == pytest.approx(2 * math.hypot(100, 100) / 3)
    lost, invented, agreed = comparison.frames
    assert (lost.area_difference, invented.area_difference, agreed.area_difference) == (1.0, None, None)
    assert lost.false_positive == agreed.false_positive == 0
    assert invented.false_positive == pytest.approx(float(disc(10).sum()) / 10_000)
    assert lost.hc_difference_mm == pytest.approx(2 * math.pi * 20, rel=0.05)
    assert agreed.hc_difference_mm is None
    assert parity.shift_px is None
    assert failed_task_gate(parity, Gates()) == (
        f"false positives on empty frames {invented.false_positive / 2:.5f}, gate <= 0.001"
    )


def test_what_the_reference_mask_confirms_is_no_false_positive() -> None:
    nothing = np.zeros((100, 100), np.uint8)
    (frame,) = compared((disc(20), nothing), truth=disc(20)).frames
    assert frame.false_positive == 0


def test_a_displacement_of_a_few_frames_is_none_of_all() -> None:
    still, moved = (disc(20), disc(20)), (np.roll(disc(20), 8, 0), disc(20))
    assert compared(still, still, moved).parity("x").shift_px == 0
    assert compared(still, moved, moved).parity("x").shift_px == pytest.approx(8)


def test_intervals_are_paired_and_by_exam() -> None:
    sizes = [20, 20, 21, 21, 22, 22, 19, 19]
    truth = disc(20)
    comparison = compared(*((disc(r), disc(20)) for r in sizes), truth=truth, pixel_size_mm=1.0, hc_mm_reference=126.0)
    parity = comparison.parity("x")
    drops = [f.dice_drop for f in comparison.frames]
    assert parity.dice_drop_ci == metrics.bootstrap_interval(drops, [f.exam for f in comparison.frames])
    assert parity.dice_drop == pytest.approx(np.mean(drops))
    for interval, value in (
        (parity.dice_drop_ci, parity.dice_drop),
        (parity.hc_increase_ci, parity.hc_increase_mm),
        (parity.hd95_ci, parity.hd95_share),
        (parity.area_difference_ci, parity.area_difference),
    ):
        assert interval is not None
        assert interval[0] < value < interval[1]


def test_no_interval_without_exams() -> None:
    frame = frame_of_no_exam()
    assert (frame.dice_drop_ci, frame.hd95_ci, frame.area_difference_ci) == (None, None, None)
    assert compared((disc(20), disc(20))).parity("x").hd95_ci is None  # one exam


def frame_of_no_exam() -> Parity:
    comparison = Comparison()
    for name in ("a.png", "b.png"):
        logits = logits_of(disc(20))
        sample = Sample(name, Path(name), None, exam=name)
        comparison.add(ReferenceFrame(disc(20), logits, disc(21), disc(20), sample), logits, disc(20))
    return comparison.parity("x")


def test_an_older_parity_is_read_and_the_new_one_survives_json() -> None:
    old = {"runtime": "x", "frames": 3, "logit_error": None, "sqnr_db": 30.0, "agreement": 0.99, "dice_source": 0.98}
    assert msgspec.convert(old, Parity) == Parity("x", 3, None, 30.0, 0.99, 0.98)
    parity = compared((disc(20), disc(21)), (disc(20), disc(20)), (disc(22), disc(20)), truth=disc(20)).parity("x")
    assert msgspec.json.decode(msgspec.json.encode(parity), type=Parity) == parity


def test_nothing_of_a_frame_is_kept_but_numbers() -> None:
    comparison = compared((disc(20), disc(21)))
    assert len(msgspec.json.encode(comparison.frames)) < 1000
    with pytest.raises(ValueError, match="no frame"):
        Comparison().parity("x")


def test_a_flipped_quarter_of_the_mask() -> None:
    reference = ReferenceFrame(frame(8), source(frame(8)[None, None].astype(np.float32)), frame(8) // 255)
    comparison = Comparison()
    comparison.add(reference, reference.logits, frame(4) // 255)
    parity = comparison.parity("x")
    assert (parity.agreement, parity.dice, parity.dice_drop) == (0.75, None, None)
    assert parity.dice_source == pytest.approx(2 * 4 / (4 + 8))


def test_an_artifact_that_gives_nan_is_an_error_not_a_pass() -> None:
    references = [reference_frame(frame(8), None, PREPROCESS, source)]
    with pytest.raises(BadInput, match="not finite"):
        compare(references, PREPROCESS, lambda p: p * np.nan, "x")


@pytest.mark.parametrize("inputs", list(Layout))
@pytest.mark.parametrize("outputs", list(Layout))
def test_every_layout_of_a_session_looks_nchw_from_outside(inputs: Layout, outputs: Layout) -> None:
    pixels = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = feeds["in"]
        assert given.flags.c_contiguous
        assert given.shape == ((1, 2, 3, 4) if inputs is Layout.NCHW else (1, 3, 4, 2))
        nchw = given if inputs is Layout.NCHW else given.transpose(0, 3, 1, 2)
        return {"out": nchw if outputs is Layout.NCHW else nchw.transpose(0, 2, 3, 1)}

    shapes = {Layout.NCHW: (1, 2, 3, 4), Layout.NHWC: (1, 3, 4, 2)}
    logits = nchw_runner(
        run,
        [TensorSpec("in", shapes[inputs], layout=inputs)],
        [TensorSpec("out", shapes[outputs], layout=outputs)],
    )
    np.testing.assert_array_equal(logits(pixels), pixels)


def test_an_area_is_held_against_the_structure_that_the_source_missed() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    missed, found = np.zeros_like(truth), np.zeros_like(truth)
    missed[5:7, 5:6] = 1
    found[5:7, 5:8] = 1
    logits = np.zeros((1, 1, 20, 20), np.float32)
    blind, seen = (
        Comparison().add(ReferenceFrame(truth, logits, missed, t), logits, found).area_difference for t in (None, truth)
    )
    assert (blind, seen) == (pytest.approx(4 / 2), pytest.approx(4 / 100))
