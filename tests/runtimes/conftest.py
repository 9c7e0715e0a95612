"""Small bundles made from the probe models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from edgeseg.bundle import file_record, open_bundle, write_manifest
from edgeseg.durable import new_folder
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.testing import PROBE
from edgeseg.types import Artifact, Bundle, Format, Layout, Manifest, Precision, Preprocess, TensorSpec

INT8 = Path(__file__).parent / "models"
SUFFIXES = {Format.ONNX: ".onnx", Format.OPENVINO: ".xml", Format.TFLITE: ".tflite"}
ALL = tuple((format, precision) for format in Format for precision in (Precision.FP32, Precision.INT8))

MakeBundle = Callable[..., Bundle]
Frames = Sequence[np.ndarray]
Source = Callable[..., FrameSource]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """A bundle of the given artifacts, opened; `spoil` may change the files before they are hashed."""

    def make(
        *kinds: tuple[Format, Precision], spoil: Callable[[Path], None] | None = None, name: str = "probe"
    ) -> Bundle:
        target = tmp_path / f"{name}.edgeseg"
        with new_folder(target) as folder:
            (folder / "artifacts").mkdir()
            artifacts = tuple(_artifact(folder, *kind, spoil) for kind in kinds or ALL)
            write_manifest(folder, Manifest("probe", ("background", "bright"), Preprocess(24, 32, 3), artifacts))
        return open_bundle(target)

    return make


def _artifact(folder: Path, format: Format, precision: Precision, spoil: Callable[[Path], None] | None) -> Artifact:
    source = (INT8 / "probe-int8.x" if precision is Precision.INT8 else PROBE / "probe.x").with_suffix(SUFFIXES[format])
    first = folder / "artifacts" / f"{format}-{precision}{source.suffix}"
    shutil.copy(source, first)
    files = [first]
    if format is Format.OPENVINO:
        files.append(first.with_suffix(".bin"))
        shutil.copy(source.with_suffix(".bin"), files[1])
    for file in files:
        if spoil:
            spoil(file)
    if format is Format.TFLITE:
        specs = (TensorSpec("image", (1, 24, 32, 3), layout=Layout.NHWC),)
        outputs = (TensorSpec("logits", (1, 24, 32, 2), layout=Layout.NHWC),)
    else:
        specs, outputs = (TensorSpec("image", (1, 3, 24, 32)),), (TensorSpec("logits", (1, 2, 24, 32)),)
    return Artifact(format, precision, tuple(file_record(file, folder) for file in files), specs, outputs)


@pytest.fixture(scope="session")
def frame() -> np.ndarray:
    """The probe's input as a frame [24, 32, 3] uint8."""
    return np.load(PROBE / "input.npy")[0].transpose(1, 2, 0).astype(np.uint8)


@pytest.fixture(scope="session")
def mask() -> np.ndarray:
    """What the probe's source makes of it, [24, 32] uint8."""
    return np.load(PROBE / "expected.npy")[0].argmax(0).astype(np.uint8)


@pytest.fixture(scope="session")
def moving(frame: np.ndarray) -> list[np.ndarray]:
    """Eight pictures: the frame, moved by one pixel from step to step."""
    return [np.roll(frame, step, axis=1) for step in range(8)]


@pytest.fixture
def still() -> Source:
    """Make a source as from a file: each frame once, as fast as it is read."""

    def make(frames: Frames) -> FrameSource:
        items = (FrameItem(frame, f"f{index}", index) for index, frame in enumerate(frames))
        return FrameSource("frames", SourceKind.FOLDER, items, length=len(frames))

    return make


@pytest.fixture
def live() -> Source:
    """Make a source as from a probe: frames at their times, over and over; `at` is told of each before it comes."""

    def make(
        frames: Frames, count: int, rate_hz: float = 30.0, at: Callable[[int], object] | None = None
    ) -> FrameSource:
        stopped = Event()

        def items() -> Iterator[FrameItem]:
            start = time.monotonic()
            for index in range(count):
                due = start + index / rate_hz
                if stopped.wait(max(0.0, due - time.monotonic())):
                    return
                if at:
                    at(index)
                yield FrameItem(frames[index % len(frames)], f"f{index}", index, captured_s=due)

        return FrameSource("probe", SourceKind.CAMERA, items(), rate_hz=rate_hz, live=True, stop=stopped.set)

    return make
