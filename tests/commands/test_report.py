"""`edgeseg report`: what it writes, what it refuses, and what its exit code says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgeseg.manifest import MANIFEST, seal, strict_json
from edgeseg.report.check import check_page
from edgeseg.report.embedding import read_page

Invoke = Callable[..., Result]
SHORT = ("--rounds", "2", "--repeats", "1")


def one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_a_page_is_written_and_checked(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = invoke("report", bundle, *SHORT, "-o", page)
    assert result.exit_code == 0, result.output
    assert "6 of 6 passed here" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    _, document = read_page(page)
    assert document.command.startswith("edgeseg report ")
    assert document.frames
    assert [f.name for f in document.frames.frames] == [f"{i:03d}.png" for i in range(8)]
    assert all(row.self_test == () and row.faults == () for row in document.rows)
    assert all(len(row.run_ms) == 2 and len(row.total_ms) == 2 for row in document.rows)
    checked = invoke("report", "--check", page)
    assert checked.exit_code == 0, checked.output
    assert "equal, all" in checked.stdout
    page.write_text(re.sub(r'(/run/p50_ms" value="[^"]*">)[^<]*', r"\g<1>0.000001", page.read_text(), count=1))
    touched = invoke("report", "--check", page)
    assert touched.exit_code == 1
    assert "DIFFERS" in touched.stdout


def test_the_source_can_be_measured_too(
    invoke: Invoke, bundle: Path, frames: Path, tiny_args: tuple[object, ...], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    args = ("--data", frames, "--split", "val", "--source", *tiny_args, "--runtime", "onnxruntime")
    result = invoke("report", bundle, *SHORT, *args, "-o", page)
    assert result.exit_code == 0, result.output
    _, document = read_page(page)
    assert [row.artifact for row in document.rows] == ["onnx-fp32", "onnx-int8", "torch", "torch-channels-last"]
    assert document.frames
    assert document.frames.reference.startswith("the source on 8 frames")
    assert {f.exam for f in document.frames.frames} == {f"exam{i}" for i in range(12, 16)}
    assert not check_page(page).wrong
    text = page.read_text()
    assert "reference mask: dotted" in text
    assert ">tflite-fp32" in text  # not measured here, but its evidence is there


def test_a_release_that_fails_is_reported_and_exits_with_1(invoke: Invoke, bundle_copy: Path, tmp_path: Path) -> None:
    """An artifact of another precision than it says, with the hash of the manifest."""
    manifest = strict_json((bundle_copy / MANIFEST).read_bytes())
    by_name = {(a["format"], a["precision"]): a for a in manifest["artifacts"]}
    exact, rounded = by_name["onnx", "fp32"], by_name["onnx", "int8"]
    shutil.copy(bundle_copy / rounded["files"][0]["path"], bundle_copy / exact["files"][0]["path"])
    exact["files"][0] |= {k: rounded["files"][0][k] for k in ("sha256", "size_bytes")}
    (bundle_copy / MANIFEST).write_bytes(seal(manifest))
    page = tmp_path / "report.html"
    result = invoke("report", bundle_copy, *SHORT, "--runtime", "onnxruntime", "-o", page)
    assert result.exit_code == 1, result.output
    assert "1 of 2 passed here, FAILED: onnx-fp32 on onnxruntime" in result.stdout
    text = page.read_text()
    assert "an fp32 artifact ran in int8" in text
    assert not check_page(page).wrong


def test_releases_are_compared(invoke: Invoke, bundle: Path, bundle_copy: Path, tmp_path: Path) -> None:
    manifest = strict_json((bundle_copy / MANIFEST).read_bytes())
    manifest["gates"]["agreement_min"] = 0.5
    (bundle_copy / MANIFEST).write_bytes(seal(manifest))
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    one = ("--runtime", "onnxruntime")
    assert invoke("report", bundle, *SHORT, *one, "--diff", bundle_copy, "-o", first).exit_code == 0
    assert "agreement_min: 0.5, now 0.995" in first.read_text()
    assert invoke("report", bundle_copy, *SHORT, *one, "--diff", first, "-o", second).exit_code == 0
    text, document = read_page(second)
    assert "<strong>Limit looser</strong>: agreement_min: 0.995, now 0.5" in text
    assert "median latency on onnxruntime, ms" in text
    assert document.previous
    assert document.previous.previous is None
    assert not check_page(second).wrong


def test_a_packed_bundle_is_as_good(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "tiny.packed"
    assert invoke("pack", bundle, "-o", packed).exit_code == 0
    result = invoke("report", packed, *SHORT, "--runtime", "litert", "-o", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    assert read_page(tmp_path / "report.html")[1].bundle == "tiny.packed"


def test_signatures_are_said(invoke: Invoke, bundle_copy: Path, tmp_path: Path) -> None:
    assert invoke("keys", "new", "release", "-o", tmp_path).exit_code == 0
    assert invoke("sign", bundle_copy, "--key", tmp_path / "release.key").exit_code == 0
    page = tmp_path / "report.html"
    args = ("report", bundle_copy, *SHORT, "--runtime", "onnxruntime", "-o", page)
    assert invoke(*args).exit_code == 0
    assert "1 signature, not checked" in page.read_text()
    assert invoke(*args, "--key", tmp_path / "release.pub").exit_code == 0
    assert "signed by release (" in page.read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "missing BUNDLE"),
        (("BUNDLE",), "missing -o"),
        (("BUNDLE", "-o", "nowhere/report.html"), "not a folder that can be written"),
        (("BUNDLE", "--check", "PAGE"), "takes a page alone"),
        (("BUNDLE", "-o", "OUT", "--diff", "gone.html"), "does not exist"),
    ],
)
def test_bad_usage(invoke: Invoke, bundle: Path, tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    (tmp_path / "page.html").write_text("no page")
    names = {"BUNDLE": bundle, "PAGE": tmp_path / "page.html", "OUT": tmp_path / "out.html"}
    assert message in one_line(invoke("report", *(names.get(a, a) for a in args)), 2)


@pytest.mark.parametrize("option", ["--check", "--diff", "--frontier"])
def test_files_of_another_kind_are_refused_before_anything_is_measured(
    invoke: Invoke, bundle: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "other.html").write_text("something else")
    args = () if option == "--check" else (bundle, "-o", tmp_path / "report.html")
    assert "is not a" in one_line(invoke("report", *args, option, tmp_path / "other.html"), 1)
    assert not (tmp_path / "report.html").exists()


def test_a_source_needs_frames(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("report", bundle, "--source", "x.safetensors", "-o", tmp_path / "report.html")
    assert "--source needs --data" in one_line(result, 1)
