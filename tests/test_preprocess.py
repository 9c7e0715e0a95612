"""Frame to input, logits to mask, by figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg import BadInput
from edgeseg.preprocess import check_frame, to_input, to_logit_maps, to_mask
from edgeseg.types import Interpolation, Layout, Preprocess

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
