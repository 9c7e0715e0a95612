"""Small bundles whose artifacts no engine would take, and keys to sign them with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import file_record, write_manifest
from edgeseg.durable import new_folder
from edgeseg.evidence import Provenance
from edgeseg.keys import encode_public_key, new_key, read_public_key
from edgeseg.manifest import MANIFEST, seal
from edgeseg.signing import sign_bundle
from edgeseg.trust import TRUSTED_KEYS
from edgeseg.types import Artifact, Format, Golden, Manifest, Precision, Preprocess

MakeFolder = Callable[..., Path]
MakeKey = Callable[..., Path]
Edit = Callable[..., None]
NAMES = ("artifacts/dense.onnx", "artifacts/sparse.tflite", "golden/000.png", "golden/000.mask.png", "golden/000.npy")


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A bundle folder in `tmp_path`: two artifacts and a golden frame."""

    def make(folder: str, *, name: str = "head", created: str = "2026-05-01T12:00:00+00:00", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        with new_folder(tmp_path / folder) as staging:
            files = []
            for path in NAMES:
                (staging / path).parent.mkdir(exist_ok=True)
                (staging / path).write_bytes(rng.bytes(9000))
                files.append(file_record(staging / path, staging))
            artifacts = (
                Artifact(Format.ONNX, Precision.FP32, (files[0],)),
                Artifact(Format.TFLITE, Precision.INT8, (files[1],)),
            )
            golden = (Golden(files[2], files[3], files[4]),)
            manifest = Manifest(name, ("background", "head"), Preprocess(32, 32), artifacts, golden=golden)
            write_manifest(staging, replace(manifest, provenance=Provenance(created=created)))
        return tmp_path / folder

    return make


@pytest.fixture
def make_key(tmp_path: Path) -> MakeKey:
    """The .pub of a new key in `tmp_path/keys`, or another folder; `expires` may be a day in the past."""

    def make(name: str = "release", folder: str = "keys", expires: str | None = None) -> Path:
        public = new_key(name, tmp_path / folder)
        public.write_bytes(encode_public_key(replace(read_public_key(public), expires=expires)))
        return public

    return make


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    """An unsigned bundle."""
    return make_folder("head.edgeseg")


@pytest.fixture
def key(make_key: MakeKey) -> Path:
    """The .pub of a key; the .key lies beside it."""
    return make_key()


@pytest.fixture
def signed(folder: Path, key: Path) -> Path:
    """The bundle, signed with `key`."""
    sign_bundle(folder, key.with_suffix(".key"))
    return folder


@pytest.fixture
def edit() -> Edit:
    """Change the JSON of a file that has a digest of its own, and give it the digest that fits."""

    def change(path: Path, how: Callable[[dict[str, object]], None]) -> None:
        content = json.loads(path.read_text())
        how(content)
        path.write_bytes(seal(content))

    return change


@pytest.fixture
def rename(edit: Edit) -> Callable[[Path], None]:
    """Change the name in a bundle's manifest, as an attacker would."""
    return lambda folder: edit(folder / MANIFEST, lambda content: content.update(name="evil"))


@pytest.fixture(autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder of this test's own, and no keys from outside."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.delenv(TRUSTED_KEYS, raising=False)
