"""The demo, start to end, as a newcomer runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.bundle import open_bundle
from edgeseg.frames import read_image


@pytest.mark.slow
def test_the_demo_does_the_main_job(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeseg.cli", "demo", "-o", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.count("passed") == 24  # six steps and six rows, of the checkpoint and of its student
    bundle = open_bundle(tmp_path / "demo" / "head.edgeseg")
    assert [a.name for a in bundle.artifacts] == [
        "onnx-fp32", "tflite-fp32", "openvino-fp32", "onnx-int8", "openvino-int8", "tflite-int8",
    ]  # fmt: skip
    rows = json.loads((tmp_path / "demo" / "bench.json").read_text())["rows"]
    by_name = {(r["format"], r["precision"], r["runtime"]): r for r in rows}
    assert len(by_name) == 8
    for row in rows:
        assert row["frames"] == 12
        assert row["dice"] > 0.96
        assert row["agreement"] > (0.9999 if row["precision"] == "fp32" else 0.995)
    int8 = [r for r in rows if r["precision"] == "int8"]
    assert all(r["executed"]["int8_layers"] > r["executed"]["layers"] / 2 for r in int8)
    assert all(r["sqnr_db"] >= 20 for r in int8)
    student = json.loads((tmp_path / "demo" / "student.json").read_text())["rows"]
    assert len(student) == 6
    assert all(r["dice"] > 0.96 for r in student)
    fastest = {name: min(r["p50_ms"] for r in found) for name, found in (("dense", int8), ("student", student))}
    assert fastest["student"] < 0.5 * fastest["dense"]
    assert len(list((tmp_path / "demo" / "overlays").glob("*.png"))) == 12
    assert read_image(tmp_path / "demo" / "overview.png").shape[2] == 3
    assert read_image(tmp_path / "demo" / "artifacts.png").std() > 20
