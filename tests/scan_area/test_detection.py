"""The field found in real pictures from ten machines, in screens made around real frames, and in what is none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import pytest

from edgeseg.frames import open_frames, read_image
from edgeseg.scan_area import find_area, whole
from edgeseg.types import Box, Frame, Mask, ScanArea

Shared = Callable[[str], Path]
Screen = Callable[..., tuple[Frame, Box]]
OnScreen = Callable[[Mask, Box], Mask]
Overlap = Callable[[Box, Box], float]
DETECT = ScanArea(detect=True)
# Left, top, width and height of the field, read off the pictures with a grid over them. The Aloka's are its two DICOM
# regions together, and the SonoSite cine's the region of the 640 x 480 picture that it is the half of. The other DICOM
# files' regions are no truth: that of the EPIQ is its whole screen, the SonoQue's the whole file, the CX50's is of a
# picture that was cropped since, the LOGIQ has none.
FIELDS = {
    "pocus_cine_itkpocus/butterfly-ocular-phantom.mp4": Box(80, 203, 608, 686),
    "pocus_cine_itkpocus/clarius-ocular-short.mp4": Box(265, 86, 750, 786),
    "pocus_cine_itkpocus/sonosite-anon-eye1-video.mp4": Box(386, 42, 338, 598),
    "pocus_cine_itkpocus/sonosite-anon-eye1.jpg": Box(386, 42, 338, 598),
    "pocus_cine_itkpocus/butterfly_axial-lateral-resolution-2020.png": Box(597, 26, 728, 1045),
    "pocus_cine_itkpocus/interson-image.jpg": Box(386, 57, 525, 790),
    "dicom_us/pydicom_examples_ybr_color.dcm": Box(42, 15, 256, 192),
    "dicom_us/pydicomdata_JPGLosslessP14SV1_1s_1f_8b.dcm": Box(134, 167, 766, 491),
    "dicom_us/pydicomdata_US1_UNCR.dcm": Box(13, 108, 611, 228),
    "dicom_us/pydicomdata_gdcm-US-ALOKA-16.dcm": Box(32, 24, 607, 391),
    "dicom_us/sonoque_axial-lateral-resolution-2020.dcm": Box(375, 60, 1332, 1349),
}


def around(a: Box, b: Box) -> Box:
    """The smallest box that holds both."""
    left, top = min(a.left, b.left), min(a.top, b.top)
    right, bottom = max(a.left + a.width, b.left + b.width), max(a.top + a.height, b.top + b.height)
    return Box(left, top, right - left, bottom - top)


def check_screen(found: Box, box: Box, mask: Mask, slack: int = 15) -> None:
    """All of the head, none of what is on the screen beside the frame; the frame's own black corners may be left."""
    grown = Box(box.left - slack, box.top - slack, box.width + 2 * slack, box.height + 2 * slack)
    assert around(grown, found) == grown, f"{found} has furniture, the frame is at {box}"
    head = Box(*cv2.boundingRect(mask))
    assert around(found, head) == found, f"{found} cuts {head}"


@pytest.mark.parametrize("name", FIELDS)
def test_the_field_is_found_in_every_frame(name: str, shared: Shared, overlap: Overlap) -> None:
    field = FIELDS[name]
    with open_frames(shared(name)) as source:
        frames = [item.frame for item in itertools.islice(source, 0, None, 10)]
    for frame in frames:
        found = find_area(frame, DETECT)
        assert overlap(found, field) > 0.9, found
        assert overlap(around(found, field), found) > 0.97, f"{found} cuts {field}"


def test_a_field_that_is_hardly_lit_is_no_field(shared: Shared) -> None:
    # The CX50 frame was cropped: of its sector, only a bright arc of 2 % of the picture is more than one gray level.
    with open_frames(shared("dicom_us/pydicom_examples_palette.dcm")) as source:
        frame = next(source).frame
    assert find_area(frame, DETECT) == whole(frame)


def test_no_head_is_cut_off(shared: Shared) -> None:
    images = sorted(shared("hc18_fetal_head/images").iterdir())[::4]
    for path in images:
        frame, mask = read_image(path), read_image(path.parents[1] / "masks" / path.name)
        found, head = find_area(frame, DETECT), Box(*cv2.boundingRect(mask))
        assert around(found, head) == found, f"{path.name}: {found} cuts {head}"


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("place", [(250, 130), (60, 180), (330, 300)])
def test_a_field_is_found_on_a_screen(
    place: tuple[int, int], colour: bool, heads: list[tuple[Frame, Mask]], screen: Screen, on_screen: OnScreen
) -> None:
    for frame, mask in heads:
        picture, box = screen(frame, left=place[0], top=place[1], colour=colour)
        check_screen(find_area(picture, DETECT), box, on_screen(mask, box))


@pytest.mark.parametrize("quality", [90, 60, 30])
def test_compression_does_not_hide_the_field(
    quality: int, heads: list[tuple[Frame, Mask]], screen: Screen, on_screen: OnScreen
) -> None:
    for frame, mask in heads[:4]:
        picture, box = screen(frame)
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        again = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
        # The mark beside the field loses its colour and counts as its shadowed flank.
        check_screen(find_area(again, DETECT), box, on_screen(mask, box), slack=45)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (20, 20), (540, 800), (540, 800, 3), (30, 4000), (4000, 30)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_even_picture_is_used_whole(shape: tuple[int, ...], value: int) -> None:
    frame = np.full(shape, value, np.uint8)
    assert find_area(frame, DETECT) == whole(frame)


def test_a_screen_without_a_field_is_used_whole(screen: Screen) -> None:
    picture, _ = screen(np.zeros((540, 800), np.uint8))
    assert find_area(picture, DETECT) == whole(picture)


def test_noise_all_over_is_used_whole() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (540, 800), dtype=np.uint8)
    assert find_area(frame, DETECT) == whole(frame)


def test_a_frame_in_a_view_of_another_is_found_alike(screen: Screen, heads: list[tuple[Frame, Mask]]) -> None:
    picture, _ = screen(heads[0][0])
    padded = np.zeros((1000, 1300, 3), np.uint8)
    padded[20:980, 10:1290] = picture
    view = padded[20:980, 10:1290]
    before = view.copy()
    assert find_area(view, DETECT) == find_area(picture, DETECT)
    np.testing.assert_array_equal(view, before)


def test_detection_costs_little(heads: list[tuple[Frame, Mask]]) -> None:
    cv2.setNumThreads(1)
    frame = heads[0][0]
    times = []
    for _ in range(20):
        start = perf_counter()
        find_area(frame, DETECT)
        times.append(perf_counter() - start)
    assert min(times) < 4e-3  # 0.7 ms on an idle core
