"""Small bundles whose artifacts no engine would take, and their one-file form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import file_record, open_bundle, write_manifest
from edgeseg.durable import new_folder
from edgeseg.transport import pack
from edgeseg.types import Artifact, Bundle, Format, Golden, Manifest, Precision, Preprocess

MakeBundle = Callable[..., Bundle]
Content = Callable[[Path], dict[str, bytes]]
NAMES = ("artifacts/dense.onnx", "artifacts/sparse.tflite", "golden/000.png", "golden/000.mask.png", "golden/000.npy")


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """A bundle in `tmp_path` of two artifacts and a golden frame, from five contents or from made-up ones."""

    def make(folder: str, *contents: bytes) -> Bundle:
        with new_folder(tmp_path / folder) as staging:
            files = []
            for name, data in zip(NAMES, contents or _contents(), strict=True):
                (staging / name).parent.mkdir(exist_ok=True)
                (staging / name).write_bytes(data)
                files.append(file_record(staging / name, staging))
            onnx = Artifact(Format.ONNX, Precision.FP32, (files[0],))
            tflite = Artifact(Format.TFLITE, Precision.INT8, (files[1],))
            frames = (Golden(files[2], files[3], files[4]),)
            classes = ("background", "head")
            write_manifest(staging, Manifest("x", classes, Preprocess(32, 32), (onnx, tflite), golden=frames))
        return open_bundle(tmp_path / folder)

    return make


def _contents() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=4000).astype(np.float32)
    sparse = np.where(abs(weights) < 1.6, np.float32(0), weights)
    return weights.tobytes(), sparse.tobytes() + b"x", rng.bytes(700), b"mask", b""


@pytest.fixture
def sound(make_bundle: MakeBundle) -> Bundle:
    """A bundle."""
    return make_bundle("sound")


@pytest.fixture
def packed(sound: Bundle, tmp_path: Path) -> Path:
    """Its one-file form."""
    pack(sound, tmp_path / "sound.tar.xz")
    return tmp_path / "sound.tar.xz"


@pytest.fixture
def content() -> Content:
    """Reads all files of a folder: relative name to bytes."""
    return lambda folder: {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own, where one-file bundles are unpacked to be opened."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
