"""Frame to input, logits to mask, by figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg import BadInput
from edgeseg.preprocess import (
    InputPlan,
    MaskPlan,
    area_of,
    check_frame,
    to_confidence,
    to_input,
    to_logit_maps,
    to_mask,
)
from edgeseg.types import Box, Interpolation, Layout, Preprocess, ScanArea

GRAY, COLOUR = Preprocess(4, 6), Preprocess(4, 6, 3, (0.0,) * 3, (1.0,) * 3)


def test_a_gray_frame_of_the_networks_size_passes_unchanged() -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(4, 6)
    pixels = to_input(frame, GRAY)
    assert (pixels.shape, pixels.dtype) == ((1, 1, 4, 6), np.float32)
    np.testing.assert_array_equal(pixels[0, 0], frame)
    np.testing.assert_array_equal(to_input(frame, GRAY, Layout.NHWC)[0, :, :, 0], frame)


def test_mean_and_std_are_not_applied_outside_the_graph() -> None:
    frame = np.full((4, 6), 200, np.uint8)
    assert to_input(frame, Preprocess(4, 6, 1, (0.5,), (0.1,))).max() == 200


def test_gray_to_three_channels_and_back() -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(4, 6)
    pixels = to_input(frame, COLOUR)
    assert pixels.shape == (1, 3, 4, 6)
    assert all((pixels[0, c] == frame).all() for c in range(3))
    assert pixels.flags.c_contiguous
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0] = 100  # red counts 0.299 in gray (ITU-R BT.601)
    assert to_input(rgb, GRAY).max() == 30


def test_colours_keep_their_order_in_both_layouts() -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., :] = (10, 20, 30)
    assert to_input(rgb, COLOUR)[0, :, 0, 0].tolist() == [10, 20, 30]
    assert to_input(rgb, COLOUR, Layout.NHWC).shape == (1, 4, 6, 3)
    assert to_input(rgb, COLOUR, Layout.NHWC)[0, 0, 0].tolist() == [10, 20, 30]


def test_interpolation_is_the_one_asked_for() -> None:
    frame = np.zeros((8, 12), np.uint8)
    frame[::4, ::4] = 160
    area = to_input(frame, Preprocess(2, 3, interpolation=Interpolation.AREA))
    assert (area == 10).all()  # one bright pixel of sixteen in each
    assert (to_input(frame, Preprocess(2, 3)) == 0).all()  # bilinear looks at the middle four, all dark


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 500), (6000, 8000), (6000, 8000, 3)])
def test_any_size_of_frame_goes_in_and_its_mask_has_its_size(shape: tuple[int, ...]) -> None:
    frame = np.full(shape, 77, np.uint8)
    assert to_input(frame, GRAY).shape == (1, 1, 4, 6)
    assert (to_input(frame, GRAY) == 77).all()
    logits = np.full((1, 1, 4, 6), 0.5, np.float32)
    mask = to_mask(logits, frame.shape)
    assert (mask.shape, mask.dtype) == (shape[:2], np.uint8)
    assert (mask == 1).all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 4), np.uint16), "frame has dtype uint16, expected uint8; scale it to 0..255"),
        (np.full((4, 4), np.nan, np.float32), "frame has dtype float32, expected uint8"),
        (np.zeros((4, 4), bool), "frame has dtype bool"),
        (np.zeros((4, 4, 4), np.uint8), r"frame has shape \(4, 4, 4\), expected \[H, W\] \(gray\) or \[H, W, 3\]"),
        (np.zeros((1, 4, 4), np.uint8), "frame has shape"),
        (np.zeros(4, np.uint8), "frame has shape"),
        (np.zeros((0, 4), np.uint8), "expected sides of 1 to"),
        (np.zeros((40000, 1), np.uint8), "expected sides of 1 to 32766 pixels"),
        ([[1, 2]], "frame is a list, expected a numpy array"),
        (None, "frame is a NoneType"),
    ],
)
def test_what_is_no_frame_is_refused(frame: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_frame(frame)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        to_input(frame, GRAY)  # type: ignore[arg-type]


def test_one_logit_is_decided_at_zero() -> None:
    logits = np.array([[-1.0, 0.0], [1e-6, 5.0]], np.float32)
    assert to_mask(logits[None, None], (2, 2)).tolist() == [[0, 0], [1, 1]]


def test_several_logits_are_decided_by_the_largest_the_first_of_equals() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 5, 7, 9)).astype(np.float32)
    np.testing.assert_array_equal(to_mask(logits, (7, 9)), logits[0].argmax(0))
    np.testing.assert_array_equal(to_mask(logits.transpose(0, 2, 3, 1), (7, 9), Layout.NHWC), logits[0].argmax(0))
    assert (to_mask(np.zeros((1, 3, 2, 2), np.float32), (2, 2)) == 0).all()


@pytest.mark.parametrize("layout", list(Layout))
def test_the_logits_of_the_caller_stay_as_they_are(layout: Layout) -> None:
    logits = np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)
    before = logits.copy()
    to_mask(logits, (4, 4), layout)
    np.testing.assert_array_equal(logits, before)


def test_logits_are_resized_before_they_are_decided() -> None:
    logits = np.array([[[[-1.0, 3.0]]]], np.float32)
    # Bilinear, half-pixel centres: -1, 0, 2, 3 at four columns; the mask alone would flip in the middle.
    assert to_mask(logits, (1, 4)).tolist() == [[0, 0, 1, 1]]
    assert to_mask(logits - 1.5, (1, 4)).tolist() == [[0, 0, 1, 1]]
    assert to_mask(logits - 2.5, (1, 4)).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_that_are_not_finite_are_refused(value: float, channels: int) -> None:
    logits = np.zeros((1, channels, 4, 4), np.float32)
    logits[0, -1, 3, 2] = value
    with pytest.raises(BadInput, match="not finite"):
        to_mask(logits, (4, 4))


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (2, 1, 4, 4), (1, 1, 1, 4, 4)])
def test_outputs_of_another_rank_or_batch_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="expected a 4-D tensor of batch 1"):
        to_mask(np.zeros(shape, np.float32), (4, 4))


def test_half_and_double_precision_logits_are_taken() -> None:
    for kind in (np.float16, np.float64):
        assert to_mask(np.ones((1, 1, 2, 2), kind), (2, 2)).all()
        assert to_logit_maps(np.ones((1, 3, 2, 2), kind)).dtype == np.float32


RNG = np.random.default_rng(3)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("preprocess", [GRAY, COLOUR])
@pytest.mark.parametrize("shape", [(9, 13), (4, 6), (4, 6, 3), (30, 17, 3)])
@pytest.mark.parametrize("area", [None, Box(1, 0, 4, 3), Box(0, 0, 6, 4)])
def test_a_plan_gives_the_same_inputs_in_one_place(
    preprocess: Preprocess, layout: Layout, shape: tuple[int, ...], area: Box | None
) -> None:
    place = np.full_like(to_input(np.zeros(shape, np.uint8), preprocess, layout), np.nan)
    plan = InputPlan(shape, preprocess, layout, area, place)
    for _ in range(3):
        frame = RNG.integers(0, 256, shape).astype(np.uint8)
        before = frame.copy()
        assert plan(frame) is place
        np.testing.assert_array_equal(place, to_input(frame, preprocess, layout, area=area))
        np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("shape", [(5, 7), (40, 30)])
@pytest.mark.parametrize("area", [None, Box(1, 2, 4, 3)])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_plan_gives_the_same_masks_and_never_writes_them_again(
    channels: int, shape: tuple[int, int], area: Box | None
) -> None:
    plan = MaskPlan(shape, area=area)
    logits = [RNG.normal(size=(1, channels, 5, 7)).astype(np.float32) for _ in range(3)]
    kept = [plan(output) for output in logits]
    for mask, output in zip(kept, logits, strict=True):
        np.testing.assert_array_equal(mask, to_mask(output, shape, area=area))
    assert len({mask.tobytes() for mask in kept}) == 3


def test_an_area_is_looked_at_alone_and_its_mask_stands_in_its_place() -> None:
    frame = np.zeros((20, 30), np.uint8)
    frame[3:11, 5:17] = np.arange(96, dtype=np.uint8).reshape(8, 12)
    box = Box(5, 3, 12, 8)
    np.testing.assert_array_equal(to_input(frame, GRAY, area=box), to_input(frame[3:11, 5:17].copy(), GRAY))
    logits = RNG.normal(size=(1, 3, 4, 6)).astype(np.float32)
    expected = np.zeros((20, 30), np.uint8)
    expected[3:11, 5:17] = to_mask(logits, (8, 12))
    assert expected.any()
    np.testing.assert_array_equal(to_mask(logits, frame.shape, area=box), expected)
    assert to_mask(np.ones((1, 1, 4, 6), np.float32), frame.shape, area=box).sum() == 96


def test_the_area_is_that_of_the_preprocessing_unless_one_is_given() -> None:
    frame = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    right_half = Preprocess(4, 6, scan_area=ScanArea(left=0.5, width=0.5))
    assert area_of(frame, GRAY) is None
    assert area_of(frame, right_half) == Box(15, 0, 15, 20)
    np.testing.assert_array_equal(to_input(frame, right_half), to_input(frame[:, 15:], GRAY))
    everything = Box(0, 0, 30, 20)
    np.testing.assert_array_equal(to_input(frame, right_half, area=everything), to_input(frame, GRAY))
    with pytest.raises(BadInput, match="frame has dtype"):
        area_of(frame.astype(float), right_half)


@pytest.mark.parametrize(
    "box", [(-1, 0, 4, 4), (0, -1, 4, 4), (0, 0, 0, 4), (0, 0, 4, -2), (27, 0, 4, 4), (0, 17, 4, 4)]
)
def test_an_area_that_is_not_inside_the_frame_is_refused(box: tuple[int, int, int, int]) -> None:
    said = r"area is Box\(left=.*expected a box of at least one pixel inside the frame of 30 x 20"
    with pytest.raises(BadInput, match=said):
        to_input(np.zeros((20, 30), np.uint8), GRAY, area=Box(*box))
    for to_result in (to_mask, to_confidence):
        with pytest.raises(BadInput, match=said):
            to_result(np.ones((1, 2, 4, 6), np.float32), (20, 30), area=Box(*box))


def test_the_confidence_of_one_logit_is_its_sigmoid() -> None:
    logits = np.array([[-2.0, 0.0], [1.0, 30.0]], np.float32)
    confidence = to_confidence(logits[None, None], (2, 2))
    assert (confidence.shape, confidence.dtype) == ((2, 2, 2), np.float32)
    np.testing.assert_allclose(confidence[1], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert confidence[:, 0, 1].tolist() == [0.5, 0.5]


def test_the_confidence_of_several_logits_is_their_softmax() -> None:
    logits = RNG.normal(size=(1, 4, 5, 7)).astype(np.float32) * 5
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum(0)
    np.testing.assert_allclose(to_confidence(logits, (5, 7)), expected, rtol=1e-5, atol=1e-7)
    turned = to_confidence(logits.transpose(0, 2, 3, 1), (5, 7), Layout.NHWC)
    np.testing.assert_array_equal(turned, to_confidence(logits, (5, 7)))


@pytest.mark.parametrize("box", [None, Box(3, 2, 20, 9)])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("scale", [1e-12, 1e-7, 1.0, 1e4, 1e30])
def test_confidence_sums_to_one_and_its_largest_is_the_mask(channels: int, scale: float, box: Box | None) -> None:
    logits = (RNG.uniform(-1, 1, size=(1, channels, 6, 8)) * scale).astype(np.float32)
    logits[0, :, 2, 3] = 0  # a tie goes to the first
    mask, confidence = to_mask(logits, (13, 29), area=box), to_confidence(logits, (13, 29), area=box)
    np.testing.assert_array_equal(confidence.argmax(0), mask)
    np.testing.assert_allclose(confidence.sum(0), 1, atol=1e-6)
    assert confidence.min() >= 0
    if box is not None:
        outside = np.ones((13, 29), bool)
        outside[2:11, 3:23] = False
        assert (confidence[0][outside] == 1).all()
        assert (confidence[1:, outside] == 0).all()
