"""`edgeseg pack` and `edgeseg unpack`, and the commands that take a packed bundle as they take a folder."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from edgeseg import open_bundle

Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def packed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgeseg.transport import pack

    target = tmp_path_factory.mktemp("packed") / "tiny.tar.xz"
    pack(open_bundle(bundle), target)
    return target


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def test_there_and_back_with_the_sizes_said(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    there = invoke("pack", bundle, "-o", tmp_path / "b.tar.xz")
    assert there.exit_code == 0, there.output
    size = (tmp_path / "b.tar.xz").stat().st_size
    folder = sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file())
    said = [float(n) for n in re.findall(r"([\d.]+) MB", there.output)]
    assert said == pytest.approx([folder / 1e6, size / 1e6], abs=0.03)
    assert size < 0.75 * folder
    back = invoke("unpack", tmp_path / "b.tar.xz", "-o", tmp_path / "b")
    assert back.exit_code == 0, back.output
    assert f"{size / 1e6:.2f} MB" in back.output
    files = [p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file()]
    assert f"{len(files)} files" in back.output
    assert all((tmp_path / "b" / f).read_bytes() == (bundle / f).read_bytes() for f in files)


def test_without_o_the_file_lies_beside_the_folder(
    invoke: Invoke, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle_copy)
    assert invoke("pack", ".").exit_code == 0
    assert open_bundle(f"{bundle_copy}.tar.xz").artifacts


def test_run_verify_and_bench_take_the_file(
    invoke: Invoke, bundle: Path, packed: Path, frames: Path, tmp_path: Path
) -> None:
    image = sorted((frames / "images").iterdir())[0]
    for source, out in ((bundle, "folder"), (packed, "file")):
        done = invoke("run", source, image, "-o", tmp_path / out, "--runtime", "litert")
        assert done.exit_code == 0, done.output
    masks = [sorted((tmp_path / out).rglob("*.png")) for out in ("folder", "file")]
    assert masks[0]
    for one, other in zip(*masks, strict=True):
        assert np.array_equal(cv2.imread(str(one)), cv2.imread(str(other)))
    done = invoke("verify", packed, "--runtime", "onnxruntime", "--json", tmp_path / "verify.json")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "verify.json").read_text())["rows"]
    assert {r["precision"] for r in rows if r["passed"]} == {"fp32", "int8"}
    done = invoke("bench", packed, "--runtime", "openvino", "--rounds", 2, "--repeats", 1)
    assert done.exit_code == 0, done.output
    assert "fastest: openvino" in done.output


def test_what_cannot_be_packed_or_unpacked_is_one_line(
    invoke: Invoke, bundle: Path, packed: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "hostile.tar.xz"
    hostile.write_bytes(packed.read_bytes()[:-100])
    cases = {
        ("pack", packed): "is a file, expected a bundle folder: it may be packed already",
        ("pack", tmp_path): "has no manifest.json",
        ("pack", bundle, "-o", tmp_path): "exists and is not a packed bundle",
        ("unpack", hostile, "-o", tmp_path / "x"): "is cut short: copy it again",
        ("unpack", bundle, "-o", tmp_path / "x"): "is not a bundle",
        ("run", hostile, bundle, "-o", tmp_path / "x"): "is cut short: copy it again",
        ("verify", hostile): "is cut short: copy it again",
    }
    for arguments, expected in cases.items():
        done = invoke(*arguments)
        assert done.exit_code == 1, arguments
        assert expected in done.output
        assert re.fullmatch(r"error: [^\n]*\n", done.output.splitlines(keepends=True)[-1])
    assert not (tmp_path / "x").exists()
    assert not list((tmp_path / "temporary").iterdir())
    assert invoke("unpack", packed).exit_code == 2


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_help_has_an_example(invoke: Invoke, command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert f"Example: edgeseg {command} head" in done.output
