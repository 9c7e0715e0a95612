"""What the harness found once, each as small as it can be."""

from __future__ import annotations

import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import file_record
from edgeseg.converters import onnx_fold
from edgeseg.converters.torch_from_onnx import load_onnx
from edgeseg.converters.weights import read_tensors
from edgeseg.errors import BundleError, ConversionError, SignatureError, UnsupportedModel
from edgeseg.fuzz.corpus_models import endless_models
from edgeseg.fuzz.fields_media import encode_npy
from edgeseg.fuzz.onnx_wire import external, graph, model, node, value
from edgeseg.golden import read_logits
from edgeseg.manifest import decode_manifest, seal
from edgeseg.trust import Signature, parse_signatures
from edgeseg.types import FileRecord, Golden


@pytest.mark.parametrize("header", ["(", "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}", "{" * 200])
def test_whatever_numpy_raises_for_a_header_is_typed(tmp_path: Path, header: str) -> None:
    path = tmp_path / "logits.npy"
    path.write_bytes(encode_npy(header, bytes(64)))
    found = file_record(path, tmp_path)
    record = FileRecord(path, found.sha256, found.size_bytes)
    with pytest.raises(BundleError, match=r"logits\.npy is no"):
        read_logits(Golden(record, record, record))
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.write(path, "weight.npy")
    with pytest.raises(ConversionError, match=r"w\.npz"):
        read_tensors(tmp_path / "w.npz")


@pytest.mark.parametrize(("height", "width", "channels"), [(2**31, 1, 1), (4097, 4096, 1), (0, 8, 1), (8, 8, 2)])
def test_a_manifest_asks_for_an_input_of_a_size(height: int, width: int, channels: int) -> None:
    content = {"name": "x", "classes": ["a"], "schema": 2, "preprocess": {"height": 4096, "width": 4096}}
    assert decode_manifest(seal(content)).preprocess.height == 4096
    content["preprocess"] = {"height": height, "width": width, "channels": channels}
    with pytest.raises(BundleError, match=f"asks for an input of {height}x{width}x{channels}"):
        decode_manifest(seal(content))


def test_archives_that_inflate_are_refused_and_others_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", weight=np.zeros(1 << 20, np.float32))
    assert read_tensors(tmp_path / "zeros.npz")["weight"].shape == (1 << 20,)
    np.savez_compressed(tmp_path / "bomb.npz", weight=np.zeros(17 << 20, np.float32))
    with pytest.raises(ConversionError, match=r"bomb\.npz would inflate to 71"):
        read_tensors(tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("bomb/data/0", bytes(1 << 20))
    with pytest.raises(ConversionError, match=r"bomb\.pth would inflate to 10"):
        read_tensors(tmp_path / "bomb.pth")


@pytest.mark.parametrize("name", endless_models())
def test_an_endless_source_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(onnx_fold, "TIME_S", 4.0)
    (tmp_path / "a.onnx").write_bytes(endless_models()[name])
    with pytest.raises(UnsupportedModel, match="did not run in 4 s"):
        load_onnx(tmp_path / "a.onnx")


def test_weights_outside_of_a_source_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4))
    (tmp_path / "sub").mkdir()
    body = graph(
        [node("Add", ["x", "w"], ["y"])],
        [value("x", (1, 1, 8, 8))],
        [value("y", (1, 1, 8, 8))],
        [external("w", (1,), "secret", 4)],
    )
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / "a.onnx").write_bytes(model(body))
        with pytest.raises(
            ConversionError, match=r"a\.onnx (keeps weights in files outside|is not a valid ONNX model)"
        ):
            load_onnx(folder / "a.onnx")


def test_true_is_no_schema() -> None:
    content = {"schema": 1, "signatures": [asdict(Signature("0" * 64, "2026-01-31T12:00:00Z", "0" * 128))]}
    assert len(parse_signatures(seal(content))) == 1
    with pytest.raises(SignatureError, match="no schema number"):
        parse_signatures(seal({**content, "schema": True}))
