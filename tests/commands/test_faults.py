"""Ten faults of a deployment: `edgeseg verify` refuses each, with the right reason."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg import self_test
from edgeseg.bundle import file_record
from edgeseg.cli import main
from edgeseg.errors import InferenceError
from edgeseg.evidence import Execution
from edgeseg.manifest import MANIFEST, seal
from edgeseg.preprocess import to_input, to_mask
from edgeseg.runtimes import openvino_runtime
from edgeseg.runtimes.onnx_runtime import OnnxSession
from edgeseg.types import Preprocess

Verify = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    """The rows of a verification that must fail."""

    def run(bundle: Path, *options: str) -> list[dict[str, Any]]:
        # In this process, because that is where the faults are.
        args = ["verify", str(bundle), "--no-isolate", "--json", str(tmp_path / "v.json"), *options]
        result = CliRunner().invoke(main, args)
        assert result.exit_code == 1, result.output
        return list(json.loads((tmp_path / "v.json").read_text())["rows"])

    return run


@pytest.fixture(scope="module")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory, user: Path, frames: Path) -> Path:
    """A bundle of a network that takes RGB, made with coloured frames."""
    folder = tmp_path_factory.mktemp("colour")
    (folder / "rgb" / "images").mkdir(parents=True)
    for path in sorted((frames / "images").glob("*.png"))[:12]:
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert gray is not None
        colour = np.stack([gray // 3, np.roll(gray, 4, 1) // 2, gray], -1)
        cv2.imwrite(str(folder / "rgb" / "images" / path.name), colour)
    target = folder / "colour.edgeseg"
    source = ["usermodels:colour", "--size", "64x96", "--channels", "3"]
    args = ["convert", *source, "--calibration", folder / "rgb", "-o", target]
    result = CliRunner().invoke(main, [str(a) for a in [*args, "--format", "onnx", "--precision", "fp32"]])
    assert result.exit_code == 0, result.output
    return target


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    change(content)
    (bundle / MANIFEST).write_bytes(seal(content))


def put(bundle: Path, name: str, *files: Path) -> None:
    """Other files in the place of an artifact's, with their own hashes: what no hash can tell."""

    def change(content: dict[str, Any]) -> None:
        artifact = next(a for a in content["artifacts"] if f"{a['format']}-{a['precision']}" == name)
        for record, file in zip(artifact["files"], files, strict=True):
            shutil.copy(file, bundle / record["path"])
            found = file_record(bundle / record["path"], bundle)
            record.update(sha256=found.sha256, size_bytes=found.size_bytes)

    edit(bundle, change)


def reasons(rows: list[dict[str, Any]], name: str = "") -> list[str]:
    return [r["reason"] for r in rows if f"{r['format']}-{r['precision']}".startswith(name) and not r["passed"]]


def with_inputs(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]) -> None:
    monkeypatch.setattr(self_test, "to_input", change)


def test_a_resize_with_another_corner_convention(
    verify: Verify, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(frame: Any, preprocess: Preprocess, **_: Any) -> Any:
        x, y = preprocess.width / frame.shape[1], preprocess.height / frame.shape[0]
        matrix = np.array([[x, 0, 0], [0, y, 0]], np.float32)
        return cv2.warpAffine(frame, matrix, (preprocess.width, preprocess.height)).astype(np.float32)[None, None]

    with_inputs(monkeypatch, shifted)
    found = reasons(verify(bundle))
    assert len(found) == 6
    assert all("shifted by half a pixel" in reason for reason in found)


def test_bgr_for_rgb(verify: Verify, colour_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_inputs(monkeypatch, lambda frame, *rest, **_: to_input(np.ascontiguousarray(frame[..., ::-1]), *rest))
    [reason] = reasons(verify(colour_bundle))
    assert "colours in the other order (BGR for RGB)" in reason


def test_one_channel_with_another_scale(
    verify: Verify, colour_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = np.array([1, 0.8, 1], np.float32)[None, :, None, None]
    with_inputs(monkeypatch, lambda frame, *rest, **_: to_input(frame, *rest) * scale)
    [reason] = reasons(verify(colour_bundle))
    assert re.search(r"another scale \(1\.00 / 0\.(79|80) / 1\.00\)", reason)


def test_a_transposed_frame(verify: Verify, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_inputs(monkeypatch, lambda frame, *rest, **_: to_input(np.ascontiguousarray(frame.T), *rest))
    found = reasons(verify(bundle))
    assert len(found) == 6
    assert all("is transposed (rows and columns swapped)" in reason for reason in found)


def test_a_flipped_mask(verify: Verify, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "to_mask", lambda logits, shape, **_: to_mask(logits, shape)[:, ::-1])
    found = reasons(verify(bundle))
    assert len(found) == 6
    assert all("mirrored left to right, while the logits are right" in reason for reason in found)


def test_bf16_execution(verify: Verify, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = openvino_runtime._config
    monkeypatch.setattr(openvino_runtime, "_config", lambda *a: config(*a) | {"INFERENCE_PRECISION_HINT": "bf16"})
    if not _has_bf16():
        record = Execution("CPU", "bf16", 0, 21, {"CPU": 21}, {"bf16": 21})
        monkeypatch.setattr(openvino_runtime.OpenVinoSession, "_inspect", lambda self: record)
    assert "an fp32 artifact ran in bf16" in reasons(verify(bundle), "openvino-fp32")[0]


def _has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(cpuinfo.read_text().split()))


def test_fp16_execution_of_an_int8_artifact(
    verify: Verify, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As OpenVINO records it on ARM processors; none is here.
    record = Execution("CPU", "fp16", 0, 21, {"CPU": 21}, {"fp16": 20, "fp32": 1})
    monkeypatch.setattr(openvino_runtime.OpenVinoSession, "_inspect", lambda self: record)
    [reason] = reasons(verify(bundle), "openvino-int8")
    assert reason.startswith("execution: an int8 artifact ran in fp16")


def test_signed_activations_in_openvino(verify: Verify, bundle_copy: Path, tmp_path: Path, frames: Path) -> None:
    import openvino
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    from edgeseg.bundle import open_bundle
    from edgeseg.dataset import read_folder

    opened = open_bundle(bundle_copy)

    class Frames(CalibrationDataReader):
        def __init__(self) -> None:
            samples = read_folder(frames).select("train").samples
            self.left = iter([{"image": to_input(s.read_frame(), opened.preprocess)} for s in samples])

        def get_next(self) -> Any:
            return next(self.left, None)

    fp32 = next(a for a in opened.artifacts if a.name == "onnx-fp32")
    quantize_static(
        fp32.path, tmp_path / "s8.onnx", Frames(), activation_type=QuantType.QInt8, weight_type=QuantType.QInt8
    )
    model = openvino.convert_model(tmp_path / "s8.onnx")
    openvino.save_model(model, tmp_path / "s8.xml", compress_to_fp16=False)
    put(bundle_copy, "openvino-int8", tmp_path / "s8.xml", tmp_path / "s8.bin")
    [reason] = reasons(verify(bundle_copy, "--runtime", "openvino"), "openvino-int8")
    assert reason.startswith("logits: SQNR"), reason


def test_another_preprocessing(verify: Verify, bundle_copy: Path) -> None:
    edit(bundle_copy, lambda content: content["preprocess"].update(mean=[0.5]))
    found = reasons(verify(bundle_copy))
    assert len(found) == 6
    assert all("the manifest's is not the one that" in reason for reason in found)


def test_an_artifact_of_another_model(
    verify: Verify, bundle_copy: Path, tmp_path: Path, user: Path, frames: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(user / "tiny.safetensors")
    weights |= {name: -weights[name] for name in ("head.weight", "head.bias")}
    save_file(weights, tmp_path / "other.safetensors")
    other = tmp_path / "other.edgeseg"
    source = ["usermodels:tiny", "--weights", tmp_path / "other.safetensors", "--size", "64x96"]
    args = ["convert", *source, "--calibration", frames, "-o", other]
    result = CliRunner().invoke(main, [str(a) for a in [*args, "--format", "onnx", "--precision", "fp32"]])
    assert result.exit_code == 0, result.output
    put(bundle_copy, "onnx-fp32", next((other / "artifacts").glob("*.onnx")))
    [reason] = reasons(verify(bundle_copy, "--runtime", "onnxruntime"))
    assert reason.startswith("logits: SQNR")
    assert reason.endswith("of another model, or of a damaged one")


def test_the_untouched_bundle_passes(bundle: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(bundle)])
    assert result.exit_code == 0, result.output


def test_strict_and_the_self_test_stop_a_run_before_a_frame(
    invoke: Callable[..., Any], bundle: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["run", bundle, frames / "images", "--runtime", "openvino", "--precision", "int8", "-o"]
    done = invoke(*args, tmp_path / "right", "--strict", "--self-test")
    assert done.exit_code == 0, done.output
    assert "openvino-int8 on openvino cpu, ran in int8" in done.stdout
    record = Execution("CPU", "fp16", 0, 20, {"CPU": 20}, {"fp16": 20})
    monkeypatch.setattr(openvino_runtime.OpenVinoSession, "_inspect", lambda self: record)
    for option in ("--strict", "--self-test"):
        done = invoke(*args, tmp_path / "wrong", option)
        assert done.exit_code == 1
        assert "an int8 artifact ran in fp16" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "wrong").exists()


def test_an_engine_that_fails_now_and_then_does_not_pass(
    verify: Verify, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, calls = OnnxSession._infer, []

    def sometimes(session: OnnxSession, feeds: Any) -> Any:
        calls.append(session)
        if len(calls) == 3:
            raise InferenceError("the engine stumbled")
        return infer(session, feeds)

    monkeypatch.setattr(OnnxSession, "_infer", sometimes)
    assert "the engine stumbled" in reasons(verify(bundle, "--runtime", "onnxruntime"))
