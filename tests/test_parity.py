"""Differences from the source, and the gates on them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.dataset import Sample
from edgeseg.errors import BadInput
from edgeseg.parity import (
    Comparison,
    ReferenceFrame,
    compare,
    failed_gate,
    failed_task_gate,
    nchw_runner,
    reference_frame,
)
from edgeseg.types import Gates, Layout, Parity, Precision, Preprocess, TensorSpec

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
    assert parity == Parity("fake", 2, 0.0, 200.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0)


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
    assert failed_gate(bad, Gates(worst_dice_min=None), Precision.INT8) is None


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"logit_error": 2e-3}, "logit error 2.00e-03, gate <= 0.001"),
        ({"agreement": 0.99}, "mask agreement 0.99000, gate >= 0.995"),
        ({"sqnr_db": 19.9}, "SQNR dB 19.9, gate >= 20"),
        ({"dice_drop": 0.006}, "Dice drop 0.0060, gate <= 0.005"),
        ({"dice_drop": None, "dice": None}, None),
        ({"logit_error": math.nan}, "logit error nan, gate <= 0.001"),
        ({"agreement": math.nan}, "mask agreement nan, gate >= 0.995"),
        ({"sqnr_db": math.nan}, "SQNR dB nan, gate >= 20"),
    ],
)
def test_gates_of_an_fp32_artifact(change: dict[str, float], reason: str | None) -> None:
    assert failed_gate(replace(GOOD, **change), Gates(), Precision.FP32) == reason


def test_logit_error_is_no_gate_of_int8_and_a_gate_can_be_off() -> None:
    worse = replace(GOOD, logit_error=0.2, agreement=0.9)
    assert failed_gate(worse, Gates(), Precision.INT8) == "mask agreement 0.90000, gate >= 0.995"
    assert failed_gate(worse, Gates(agreement_min=None), Precision.INT8) is None


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
