"""examples/c gives the bytes that `edgeseg.preprocess` gives: compiled here, called by ctypes, compared on every path.

Not one byte may differ, on any processor.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edgeseg import samples
from edgeseg.dataset import read_folder
from edgeseg.preprocess import to_input, to_mask
from edgeseg.scan_area import fixed_area
from edgeseg.types import Array, Box, Interpolation, Layout, Preprocess, ScanArea

FOLDER = Path(__file__).parents[2] / "examples" / "c"
GUARD = 64
FRAMES = [
    *((1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (17, 31), (33, 1024), (64, 64), (100, 300), (128, 128), (255, 257)),
    *((256, 256), (480, 640), (512, 512), (540, 800), (720, 960), (768, 768), (1080, 776)),
]
NETWORKS = [(1, 1), (5, 3), (8, 16), (37, 91), (64, 64), (255, 129), (256, 256), (320, 320), (540, 800)]
LOGITS = [(2, 2), (3, 2), (8, 8), (30, 50), (64, 64), (128, 64), (256, 256)]


class CBox(ctypes.Structure):
    _fields_: ClassVar[Any] = [(n, ctypes.c_int) for n in ("left", "top", "width", "height")]


class CFrame(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("pixels", ctypes.c_void_p),
        *((n, ctypes.c_int) for n in ("height", "width", "channels")),
        ("stride", ctypes.c_size_t),
    ]


class CNetwork(ctypes.Structure):
    _fields_: ClassVar[Any] = [(n, ctypes.c_int) for n in ("height", "width", "channels", "interpolation", "nhwc")]


class CLogits(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("values", ctypes.c_void_p),
        *((n, ctypes.c_int) for n in ("channels", "height", "width", "nhwc")),
    ]


class CMask(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("pixels", ctypes.c_void_p),
        *((n, ctypes.c_int) for n in ("height", "width")),
        ("stride", ctypes.c_size_t),
    ]


class Library:
    """The C functions with numpy arrays; checks that no byte is written past a buffer."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.edgeseg_input_work.restype = self.c.edgeseg_mask_work.restype = ctypes.c_size_t

    def to_input(
        self, frame: Array, preprocess: Preprocess, layout: Layout = Layout.NCHW, area: Box | None = None
    ) -> Array:
        p, planar = preprocess, layout is Layout.NCHW
        shape = (1, p.channels, p.height, p.width) if planar else (1, p.height, p.width, p.channels)
        network = CNetwork(p.height, p.width, p.channels, int(p.interpolation is Interpolation.AREA), int(not planar))
        box = c_box(area, frame.shape)
        values, work = Guarded(shape, np.float32), self.work(self.c.edgeseg_input_work(box, ctypes.byref(network)))
        c_frame = CFrame(frame.ctypes.data, *frame.shape[:2], 1 if frame.ndim == 2 else 3, frame.strides[0])
        arguments = (ctypes.byref(c_frame), box, ctypes.byref(network), values.pointer, work.pointer)
        assert self.c.edgeseg_to_input(*arguments, ctypes.c_size_t(work.size)) == 0
        work.check()
        return values.check()

    def to_mask(
        self, logits: Array, shape: tuple[int, ...], layout: Layout = Layout.NCHW, area: Box | None = None
    ) -> Array:
        sizes = logits.shape[1:] if layout is Layout.NCHW else (logits.shape[3], *logits.shape[1:3])
        c_logits = CLogits(logits.ctypes.data, *sizes, int(layout is Layout.NHWC))
        box = c_box(area, shape)
        mask, work = Guarded(shape[:2], np.uint8), self.work(self.c.edgeseg_mask_work(ctypes.byref(c_logits), box))
        c_mask = CMask(mask.pointer, *shape[:2], shape[1])
        arguments = (ctypes.byref(c_logits), box, ctypes.byref(c_mask), work.pointer)
        assert self.c.edgeseg_to_mask(*arguments, ctypes.c_size_t(work.size)) == 0
        work.check()
        return mask.check()

    @staticmethod
    def work(size: int) -> Guarded:
        assert size > 0
        return Guarded((size,), np.uint8)


class Guarded:
    """An array with a guard behind it."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.bytes = np.full(self.size + GUARD, 0xA5, np.uint8)
        self.array = self.bytes[: self.size].view(dtype).reshape(shape)
        self.pointer = ctypes.c_void_p(self.bytes.ctypes.data)

    def check(self) -> Array:
        assert (self.bytes[self.size :] == 0xA5).all(), "written past the end"
        return self.array


def c_box(area: Box | None, shape: tuple[int, ...]) -> CBox:
    return CBox(area.left, area.top, area.width, area.height) if area else CBox(0, 0, shape[1], shape[0])


def compiled(folder: Path, *flags: str) -> Library:
    target = folder / "edgeseg_preprocess.so"
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
    words = ["cc", "-std=c99", "-O2", *flags, *warnings, "-shared", "-fPIC", "-o", target]
    subprocess.run([*map(str, words), str(FOLDER / "edgeseg_preprocess.c"), "-lm"], check=True)
    return Library(target)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return compiled(tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def check_input(found: Array, expected: Array) -> None:
    np.testing.assert_array_equal(found, expected)


def check_mask(found: Array, expected: Array) -> None:
    np.testing.assert_array_equal(found, expected)


def picture(rng: np.random.Generator, shape: tuple[int, int], channels: int) -> Array:
    return rng.integers(0, 256, shape if channels == 1 else (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1), (3, 3)], ids=["1to1", "1to3", "3to1", "3to3"])
def test_network_inputs(library: Library, interpolation: Interpolation, channels: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    of_frame, of_network = channels
    for shape, (height, width) in itertools.product(FRAMES, NETWORKS):
        frame = picture(rng, shape, of_frame)
        zeros = (0.0,) * of_network
        preprocess = Preprocess(height, width, of_network, zeros, zeros, interpolation)
        for layout in Layout if height == 37 else (Layout.NCHW,):
            check_input(library.to_input(frame, preprocess, layout), to_input(frame, preprocess, layout))


def test_odd_and_random_sizes(library: Library) -> None:
    rng = np.random.default_rng(1)
    for _ in range(400):
        shape, size = (tuple(int(v) for v in rng.integers(1, 90, 2)) for _ in range(2))
        channels = int(rng.choice([1, 3]))
        interpolation = Interpolation.LINEAR if rng.random() < 0.5 else Interpolation.AREA
        frame, preprocess = picture(rng, shape, channels), Preprocess(*size, interpolation=interpolation)
        check_input(library.to_input(frame, preprocess), to_input(frame, preprocess))


def test_every_colour_becomes_the_same_gray(library: Library) -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(86 * 86, 86, 3)
    preprocess = Preprocess(86 * 86, 86)
    check_input(library.to_input(colours, preprocess), to_input(colours, preprocess))


def test_areas_and_views_with_a_stride(library: Library) -> None:
    rng = np.random.default_rng(2)
    for channels, interpolation in itertools.product((1, 3), Interpolation):
        whole = picture(rng, (300, 400), channels)
        frame = whole[10:290, 20:380]
        for shares in ((0.1, 0.2, 0.5, 0.7), (0.0, 0.0, 1.0, 1.0), (0.999, 0.5, 0.001, 0.5), (0.25, 0.25, 0.5, 0.5)):
            scan_area = ScanArea(False, *shares)
            preprocess = Preprocess(64, 96, channels, (0.0,) * channels, (1.0,) * channels, interpolation, scan_area)
            area = fixed_area(frame.shape, scan_area)
            check_input(library.to_input(frame, preprocess, area=area), to_input(frame, preprocess))


def test_fixed_areas_are_rounded_alike(library: Library) -> None:
    rng = np.random.default_rng(3)
    for _ in range(2000):
        height, width = (int(v) for v in rng.integers(1, 3000, 2))
        left, top = rng.random(2)
        shares = (left, top, rng.random() * (1 - left) + 1e-9, (1 - top) if rng.random() < 0.3 else 1e-9)
        box = CBox()
        assert library.c.edgeseg_fixed_area(height, width, *map(ctypes.c_double, shares), ctypes.byref(box)) == 0
        expected = fixed_area((height, width), ScanArea(False, *shares))
        assert Box(box.left, box.top, box.width, box.height) == expected


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_masks(library: Library, classes: int) -> None:
    rng = np.random.default_rng(4)
    for size, shape in itertools.product(LOGITS, FRAMES):
        logits = rng.normal(size=(1, classes, *size)).astype(np.float32)
        check_mask(library.to_mask(logits, shape), to_mask(logits, shape))
    last = np.ascontiguousarray(logits.transpose(0, 2, 3, 1))
    check_mask(library.to_mask(last, (540, 800), Layout.NHWC), to_mask(last, (540, 800), Layout.NHWC))


def test_masks_of_an_area(library: Library) -> None:
    logits = np.random.default_rng(5).normal(size=(1, 1, 64, 64)).astype(np.float32)
    area = Box(100, 50, 500, 333)
    mask = library.to_mask(logits, (540, 800), area=area)
    check_mask(mask, to_mask(logits, (540, 800), area=area))
    assert not mask[:50].any()
    assert not mask[:, 600:].any()


def test_real_frames_through_the_student(library: Library) -> None:
    from edgeseg.converters.source import load_source

    source = load_source(str(samples.STUDENT))
    for sample in read_folder(samples.FRAMES).samples:
        frame = sample.read_frame()
        pixels = library.to_input(frame, source.preprocess)
        check_input(pixels, to_input(frame, source.preprocess))
        logits = source.run(pixels)
        check_mask(library.to_mask(logits, frame.shape), to_mask(logits, frame.shape))


def test_bad_arguments_are_told(library: Library) -> None:
    c, frame, values = library.c, np.zeros((8, 8), np.uint8), np.zeros((4, 4), np.float32)
    work = np.zeros(4096, np.uint8)
    network, inside = CNetwork(4, 4, 1, 0, 0), CBox(0, 0, 8, 8)

    def call(picture: CFrame, area: CBox, net: CNetwork, size: int = 4096) -> int:
        pointers = (ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(work.ctypes.data), ctypes.c_size_t(size))
        status: int = c.edgeseg_to_input(ctypes.byref(picture), area, ctypes.byref(net), *pointers)
        return status

    good = CFrame(frame.ctypes.data, 8, 8, 1, 8)
    assert call(good, inside, network) == 0
    assert call(CFrame(None, 8, 8, 1, 8), inside, network) == -1
    assert call(CFrame(frame.ctypes.data, 0, 8, 1, 8), inside, network) == -1
    assert call(CFrame(frame.ctypes.data, 8, 8, 2, 8), inside, network) == -1
    assert call(good, inside, CNetwork(4, 4, 2, 0, 0)) == -1
    assert call(good, inside, CNetwork(4, 4, 1, 7, 0)) == -1
    for area in (CBox(1, 0, 8, 8), CBox(0, 0, 8, 9), CBox(-1, 0, 4, 4), CBox(0, 0, 0, 8), CBox(2**31 - 1, 0, 2, 2)):
        assert call(good, area, network) == -1
    assert call(good, inside, network, 8) == -2
    logits = np.full((1, 1, 2, 2), np.nan, np.float32)
    c_logits, mask = CLogits(logits.ctypes.data, 1, 2, 2, 0), CMask(frame.ctypes.data, 8, 8, 8)
    rest = (ctypes.byref(mask), ctypes.c_void_p(work.ctypes.data), ctypes.c_size_t(4096))
    assert c.edgeseg_to_mask(ctypes.byref(c_logits), inside, *rest) == -3
    for shares in ((0.0, 0.0, 0.0, 1.0), (0.5, 0.0, 0.6, 1.0), (float("nan"), 0.0, 1.0, 1.0)):
        assert c.edgeseg_fixed_area(8, 8, *map(ctypes.c_double, shares), ctypes.byref(CBox())) == -1


def test_an_optimised_build_gives_the_same(tmp_path: Path) -> None:
    library = compiled(tmp_path, "-O3", "-march=native")
    rng = np.random.default_rng(6)
    for interpolation in Interpolation:
        frame, preprocess = picture(rng, (540, 800), 3), Preprocess(200, 256, interpolation=interpolation)
        check_input(library.to_input(frame, preprocess), to_input(frame, preprocess))
    logits = rng.normal(size=(1, 3, 64, 64)).astype(np.float32)
    check_mask(library.to_mask(logits, (540, 800)), to_mask(logits, (540, 800)))
