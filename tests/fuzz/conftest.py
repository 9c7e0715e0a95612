"""A small sound bundle with golden frames, and a workbench with its signed copy, once a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.bundle import file_record, write_manifest
from edgeseg.durable import new_folder
from edgeseg.fuzz.workbench import Workbench, workbench
from edgeseg.testing import PROBE
from edgeseg.types import Artifact, Format, Golden, Layout, Manifest, Precision, Preprocess, TensorSpec

SUFFIXES = {Format.ONNX: (".onnx",), Format.OPENVINO: (".xml", ".bin"), Format.TFLITE: (".tflite",)}


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder of the probe network in three formats and a golden frame, not signed."""
    target = tmp_path_factory.mktemp("sound") / "probe.edgeseg"
    with new_folder(target) as folder:
        (folder / "artifacts").mkdir()
        (folder / "golden").mkdir()
        artifacts = tuple(_artifact(folder, format) for format in Format)
        classes = ("background", "bright")
        write_manifest(folder, Manifest("probe", classes, Preprocess(24, 32, 3), artifacts, golden=(_golden(folder),)))
    return target


@pytest.fixture(scope="session")
def bench(sound: Path) -> Iterator[Workbench]:
    with workbench(sound) as made:
        yield made


def _artifact(folder: Path, format: Format) -> Artifact:
    files = []
    for suffix in SUFFIXES[format]:
        files.append(folder / "artifacts" / f"model{suffix}")
        shutil.copy(PROBE / f"probe{suffix}", files[-1])
    last = format is Format.TFLITE
    shape, layout = ((1, 24, 32, 3), Layout.NHWC) if last else ((1, 3, 24, 32), Layout.NCHW)
    outputs = (TensorSpec("logits", (1, 24, 32, 2) if last else (1, 2, 24, 32), layout=layout),)
    records = tuple(file_record(file, folder) for file in files)
    return Artifact(format, Precision.FP32, records, (TensorSpec("image", shape, layout=layout),), outputs)


def _golden(folder: Path) -> Golden:
    logits = np.load(PROBE / "expected.npy").astype(np.float32)
    frame = np.load(PROBE / "input.npy")[0].transpose(1, 2, 0).astype(np.uint8)
    cv2.imwrite(str(folder / "golden" / "000.png"), frame[:, :, ::-1])
    cv2.imwrite(str(folder / "golden" / "000.mask.png"), logits[0].argmax(0).astype(np.uint8))
    np.save(folder / "golden" / "000.npy", logits)
    names = ("000.png", "000.mask.png", "000.npy")
    return Golden(*(file_record(folder / "golden" / name, folder) for name in names))
