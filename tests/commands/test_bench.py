"""`edgeseg bench`: every figure of the contract, measured or null."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

from edgeseg.bundle import file_record
from edgeseg.manifest import MANIFEST, seal

Invoke = Callable[..., Result]
SHORT = ("--rounds", "2", "--repeats", "2", "--threads", "1")
TIMES = ("p50_ms", "p90_ms", "p99_ms", "fps", "load_ms", "size_mb", "peak_memory_mb")


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def test_every_artifact_and_the_source_are_measured(
    invoke: Invoke, bundle: Path, frames: Path, tiny_args: tuple[object, ...], tmp_path: Path
) -> None:
    source = ("--source", *tiny_args)
    result = invoke("bench", bundle, "--data", frames, *source, "--json", tmp_path / "b.json", *SHORT)
    assert result.exit_code == 0, result.output
    telemetry = json.loads((tmp_path / "b.json").read_text())["telemetry"]
    assert telemetry["samples"] >= 1
    assert telemetry["spreads"]["memory_available_bytes"]["least"] > 1e6
    assert 0 < telemetry["cost"] < 1
    rows = read(tmp_path / "b.json")
    artifacts = [r for r in rows if r["format"] != "torch"]
    assert {(r["format"], r["precision"]) for r in artifacts} == {
        (f, p) for f in ("onnx", "openvino", "tflite") for p in ("fp32", "int8")
    }
    assert [r["runtime"] for r in rows if r["format"] == "torch"] == ["torch", "torch-channels-last"]
    for row in artifacts:
        assert all(row[name] > 0 for name in TIMES), row
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["fps"] == pytest.approx(1000 / row["p50_ms"])
        assert row["total_p50_ms"] > 0
        assert row["threads"] == 1
        assert row["passed"] is True
        assert row["dice"] > 0.9
        assert row["peak_memory_mb"] > 10
    for row in rows[6:]:
        assert row["p50_ms"] > 0
        assert row["load_ms"] is row["size_mb"] is row["peak_memory_mb"] is row["executed"] is row["passed"] is None
    sizes = {(r["format"], r["precision"]): r["size_mb"] for r in artifacts}
    files = bundle / "artifacts"
    assert sizes["onnx", "fp32"] == pytest.approx((files / "model.fp32.onnx").stat().st_size / 1e6)
    both = sum((files / f"model.fp32{s}").stat().st_size for s in (".xml", ".bin"))
    assert sizes["openvino", "fp32"] == pytest.approx(both / 1e6)


def test_one_runtime_on_golden_frames_in_plain_text(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("bench", bundle, "--runtime", "onnxruntime", "--json", tmp_path / "b.json", *SHORT)
    assert result.exit_code == 0, result.output
    assert [r["runtime"] for r in read(tmp_path / "b.json")] == ["onnxruntime"] * 2
    assert "\x1b" not in result.output
    assert "against the source's results on 8 golden frames" in result.stdout
    assert "onnx-int8 takes" in result.stdout
    assert "fastest: onnx-" in result.stdout
    header = next(line for line in result.stdout.splitlines() if line.startswith("artifact"))
    assert "p50 ms" in header
    assert "HC mm" not in header  # a column in which nothing was measured is left out


def test_an_artifact_that_gives_nan_is_a_failed_row_and_never_the_fastest(
    invoke: Invoke, bundle_copy: Path, tmp_path: Path
) -> None:
    path = bundle_copy / "artifacts" / "model.fp32.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, math.nan), tensor.name))
    onnx.save(model, path)
    content = json.loads((bundle_copy / MANIFEST).read_text())
    record = next(f for a in content["artifacts"] for f in a["files"] if f["path"].endswith(path.name))
    fresh = file_record(path, bundle_copy)
    record["sha256"], record["size_bytes"] = fresh.sha256, fresh.size_bytes
    (bundle_copy / MANIFEST).write_bytes(seal(content))
    result = invoke("bench", bundle_copy, "--runtime", "onnxruntime", "--json", tmp_path / "b.json", *SHORT)
    assert result.exit_code == 1, result.output
    failed, sound = sorted(read(tmp_path / "b.json"), key=lambda r: str(r["precision"]))
    assert "not finite" in failed["reason"]
    assert failed["dice_source"] is None
    assert sound["passed"] is True
    assert "fastest: onnx-int8" in result.stdout
