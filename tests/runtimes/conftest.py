"""Small bundles made from the probe models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import file_record, open_bundle, write_manifest
from edgeseg.durable import new_folder
from edgeseg.testing import PROBE
from edgeseg.types import Artifact, Bundle, Format, Layout, Manifest, Precision, Preprocess, TensorSpec

INT8 = Path(__file__).parent / "models"
SUFFIXES = {Format.ONNX: ".onnx", Format.OPENVINO: ".xml", Format.TFLITE: ".tflite"}
ALL = tuple((format, precision) for format in Format for precision in (Precision.FP32, Precision.INT8))

MakeBundle = Callable[..., Bundle]


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


def _artifact(
    folder: Path, format: Format, precision: Precision, spoil: Callable[[Path], None] | None
) -> Artifact:
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
