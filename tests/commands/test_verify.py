"""`edgeseg verify`: a sound bundle passes, one whose artifact was exchanged does not, however well it was hashed."""

from __future__ import annotations

import hashlib
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
from safetensors.numpy import load_file, save_file

from edgeseg.manifest import MANIFEST, seal

Invoke = Callable[..., Result]
# The outward contract: scripts of users rely on exactly these names.
REPORT = {"schema", "bundle", "board", "rows"}
ROW = {
    *("format", "precision", "runtime", "device", "threads", "frames", "p50_ms", "p90_ms", "p99_ms", "fps", "load_ms"),
    *("size_mb", "peak_memory_mb", "dice", "dice_source", "agreement", "sqnr_db", "hc_mae_mm", "executed", "passed"),
    "reason",
}
EXECUTED = {"provider", "precision", "int8_layers", "layers"}


def read(path: Path) -> dict[str, Any]:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    content: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return content


def change_onnx(bundle: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the weights of model.fp32.onnx and write the right hash into the manifest."""
    path = bundle / "artifacts" / "model.fp32.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(change(array).astype(np.float32), tensor.name))
    onnx.save(model, path)
    content = json.loads((bundle / MANIFEST).read_text())
    (record,) = (f for a in content["artifacts"] for f in a["files"] if f["path"].endswith(path.name))
    record["sha256"], record["size_bytes"] = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    (bundle / MANIFEST).write_bytes(seal(content))


def one_line(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_a_sound_bundle_passes_on_its_golden_frames(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    result = invoke("verify", bundle, "--threads", 1, "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.output
    assert "6 passed, 0 failed, 0 not run here" in result.stdout
    assert "\x1b" not in result.output
    report = read(tmp_path / "v.json")
    assert report.keys() >= REPORT
    assert report["schema"] == 1
    assert report["bundle"] == str(bundle)
    assert report["board"]
    assert len(report["rows"]) == 6
    for row in report["rows"]:
        assert row.keys() >= ROW
        assert row["passed"] is True
        assert row["reason"] is None
        assert row["frames"] == 8
        assert row["device"] == "cpu"
        assert row["executed"].keys() >= EXECUTED
        assert row["executed"]["layers"] > 0
        assert (row["executed"]["int8_layers"] > 0) is (row["precision"] == "int8")
        assert row["agreement"] >= 0.995
        # Golden frames have no reference masks, and verify times nothing: not measured is null, never 0.
        for name in ("dice", "hc_mae_mm", "p50_ms", "p90_ms", "p99_ms", "fps", "load_ms", "peak_memory_mb"):
            assert row[name] is None


def test_with_frames_the_source_and_references_are_measured(
    invoke: Invoke, bundle: Path, frames: Path, tiny_args: tuple[object, ...], tmp_path: Path
) -> None:
    source = ("--source", *tiny_args)
    result = invoke("verify", bundle, "--data", frames, *source, "--threads", 1, "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "v.json")["rows"]
    torch_rows = [r for r in rows if r["format"] == "torch"]
    assert torch_rows[0]["agreement"] == 1
    assert torch_rows[0]["executed"] is None
    for row in rows:
        assert row["frames"] == 8
        assert row["dice"] == pytest.approx(torch_rows[0]["dice"], abs=0.005)
        assert row["dice"] > 0.9
        assert 0 < row["hc_mae_mm"] < 10
        low, high = row["dice_ci"]
        assert low <= row["dice"] <= high


def test_without_the_source_an_fp32_artifact_stands_in(invoke: Invoke, bundle: Path, frames: Path) -> None:
    result = invoke("verify", bundle, "--data", frames, "--split", "val", "--runtime", "onnxruntime", "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "against onnx-fp32, which stands in for the source, on 8 frames of ellipses val" in result.stdout
    assert "2 passed, 0 failed" in result.stdout


def test_an_exchanged_artifact_fails_though_its_hash_is_right(
    invoke: Invoke, bundle_copy: Path, tmp_path: Path
) -> None:
    change_onnx(bundle_copy, lambda w: w * 1.05)
    result = invoke("verify", bundle_copy, "--threads", 1, "--json", tmp_path / "v.json")
    assert result.exit_code == 1
    assert "5 passed, 1 failed" in result.stdout
    (failed,) = (r for r in read(tmp_path / "v.json")["rows"] if not r["passed"])
    assert (failed["format"], failed["precision"]) == ("onnx", "fp32")
    assert failed["reason"].startswith("logits: SQNR")
    assert any(reason.startswith("logit error") for reason in failed["failed"])
    assert "FAILED: logits: SQNR" in result.stdout


def test_an_artifact_that_gives_nan_fails_and_its_figures_stay_unknown(
    invoke: Invoke, bundle_copy: Path, tmp_path: Path
) -> None:
    change_onnx(bundle_copy, lambda w: w * math.nan)
    result = invoke("verify", bundle_copy, "--runtime", "onnxruntime", "--json", tmp_path / "v.json")
    assert result.exit_code == 1
    (failed,) = (r for r in read(tmp_path / "v.json")["rows"] if not r["passed"])
    assert "not finite (NaN or infinity)" in failed["reason"]
    assert failed["agreement"] is failed["sqnr_db"] is failed["frames"] is None


def test_a_spoiled_file_stops_everything_before_an_engine_starts(invoke: Invoke, bundle_copy: Path) -> None:
    path = bundle_copy / "artifacts" / "model.int8.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "model.int8.tflite does not have the SHA-256" in one_line(invoke("verify", bundle_copy))


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_another_source_is_refused(
    command: str, invoke: Invoke, bundle: Path, frames: Path, user: Path, tmp_path: Path
) -> None:
    def given(*spec: object) -> str:
        return one_line(invoke(command, bundle, "--data", frames, "--source", *spec))

    assert "it is not this bundle's source" in given("usermodels:colour", "--size", "64x96")
    assert "it is not this bundle's source" in given("usermodels:tiny", "--size", "96x96")
    weights = load_file(user / "tiny.safetensors")
    save_file({k: v * 1.01 if v.dtype == np.float32 else v for k, v in weights.items()}, tmp_path / "w.safetensors")
    other = ("usermodels:tiny", "--size", "64x96", "--weights", tmp_path / "w.safetensors")
    assert "has other weights than the source of this bundle" in given(*other)


@pytest.mark.parametrize("command", ["verify", "bench"])
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--runtime", "nonsense"), 2, "'nonsense' is not one of 'fake', 'litert', 'onnxruntime', 'openvino'"),
        (("--device", "quantum", "--runtime", "onnxruntime"), 1, "quantum"),
        (("--threads", "0"), 2, "Invalid value for '--threads'"),
        (("--data", "nowhere"), 1, "nowhere has no frames"),
        (("--data", "FRAMES", "--split", "future"), 1, "has no split 'future' (splits: test, train, val)"),
        (("--json", "nowhere/x.json"), 2, "nowhere is not a folder that can be written"),
    ],
)
def test_options_that_cannot_be(
    command: str, options: tuple[str, ...], code: int, message: str, invoke: Invoke, bundle: Path, frames: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [str(frames) if o == "FRAMES" else o for o in options]
    short = ("--rounds", 2, "--repeats", 1) if command == "bench" else ()
    assert message in one_line(invoke(command, bundle, *given, *short), code)


def test_a_source_needs_frames(invoke: Invoke, bundle: Path) -> None:
    assert "--source needs --data" in one_line(invoke("verify", bundle, "--source", "x:y"))
