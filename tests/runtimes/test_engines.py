"""What is particular to one engine: int8 artifacts, precision, providers, options."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseg import plugins
from edgeseg.bundle import read_model
from edgeseg.errors import InferenceError, NoSuchDevice
from edgeseg.runtimes import litert_runtime, onnx_runtime, openvino_runtime
from edgeseg.runtimes.onnx_providers import tensorrt_options
from edgeseg.runtimes.runtime import read_file
from edgeseg.testing import PROBE
from edgeseg.types import Layout

MODELS = Path(__file__).parent / "models"


def run(runtime: str, path: Path) -> tuple[np.ndarray, object]:
    with plugins.runtime(runtime).load(path, threads=1) as session:
        source, sink = session.inputs[0], session.outputs[0]
        image = np.load(PROBE / "input.npy")
        planar = source.layout is Layout.NCHW
        output = session.run({source.name: image if planar else image.transpose(0, 2, 3, 1)})[sink.name]
        return output if planar else output.transpose(0, 3, 1, 2), session.execution()


@pytest.mark.parametrize(
    ("runtime", "file", "layers"),
    [
        ("onnxruntime", "probe-int8.onnx", 3),  # the normalisation stays a layer of its own
        ("openvino", "probe-int8.xml", 3),
        ("litert", "probe-int8.tflite", 2),
        ("litert", "probe-int8-ports.tflite", 2),
    ],
)
def test_int8_is_right_and_runs_on_int8_kernels(runtime, file, layers):
    output, execution = run(runtime, MODELS / file)
    expected = np.load(PROBE / "expected.npy")
    assert output.dtype == np.float32
    assert np.abs(output - expected).max() < 0.02 * np.ptp(expected)
    assert (execution.precision, execution.int8_layers, execution.layers) == ("int8", 2, layers)


class TestOnnxRuntime:
    def test_a_provider_that_silently_falls_back_is_refused(self):
        setup, options = onnx_runtime._Setup("cuda", 1, {}), onnx_runtime._session_options(1)
        with pytest.warns(UserWarning, match="not in available"), pytest.raises(NoSuchDevice, match="fell back to CPU"):
            onnx_runtime._create(read_file(PROBE / "probe.onnx"), setup, options)

    def test_an_absent_provider_names_what_exists(self):
        with pytest.raises(NoSuchDevice, match=r"no TensorrtExecutionProvider .*; usable here: cpu"):
            plugins.runtime("onnxruntime").load(PROBE / "probe.onnx", device="tensorrt")

    def test_tensorrt_uses_int8_for_quantized_models_only(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        plain = tensorrt_options(read_file(PROBE / "probe.onnx"), {}, "1.31.1")
        quantized = tensorrt_options(read_file(MODELS / "probe-int8.onnx"), {}, "1.31.1")
        assert (plain["trt_int8_enable"], quantized["trt_int8_enable"]) == ("0", "1")
        assert plain["trt_fp16_enable"] == "0"
        assert Path(plain["trt_engine_cache_path"]).is_dir()

    def test_profiling_leaves_no_file_behind(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _, execution = run("onnxruntime", PROBE / "probe.onnx")
        assert execution.provider == "CPUExecutionProvider"
        assert list(tmp_path.iterdir()) == []


class TestOpenVino:
    def test_raw_onnx_is_refused(self):
        with pytest.raises(InferenceError, match=r"openvino cannot load probe.onnx, expected .*\.xml"):
            plugins.runtime("openvino").load(PROBE / "probe.onnx")

    def test_weights_missing(self, tmp_path):
        shutil.copy(PROBE / "probe.xml", tmp_path)
        with pytest.raises(InferenceError, match=r"probe.bin does not exist"):
            plugins.runtime("openvino").load(tmp_path / "probe.xml")

    def test_fp32_is_computed_in_fp32_on_cpus_that_prefer_bf16(self):
        with plugins.runtime("openvino").load(PROBE / "probe.xml", device="cpu", threads=1) as session:
            assert session._model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
            assert session._model.get_property("INFERENCE_NUM_THREADS") == 1
            assert session._model.get_property("NUM_STREAMS") == 1

    def test_an_npu_is_not_asked_for_fp32(self):
        assert openvino_runtime._config("npu", 1, {}) == {"PERFORMANCE_HINT": "LATENCY"}
        assert "INFERENCE_NUM_THREADS" not in openvino_runtime._config("gpu", 1, {})

    def test_dynamic_shapes_are_refused(self, tmp_path):
        import openvino

        model = openvino.Core().read_model(PROBE / "probe.xml")
        model.reshape([1, 3, -1, 32])
        openvino.save_model(model, tmp_path / "free.xml", compress_to_fp16=False)
        with pytest.raises(InferenceError, match="expected a fixed one"):
            plugins.runtime("openvino").load(tmp_path / "free.xml")


class TestLiteRt:
    def test_nothing_is_written_to_stderr(self):
        code = (
            "from edgeseg import plugins; from pathlib import Path; "
            f"plugins.runtime('litert').load(Path({str(PROBE / 'probe.tflite')!r})).close()"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("", "")

    def test_fp32_is_on_xnnpack(self):
        _, execution = run("litert", PROBE / "probe.tflite")
        assert execution.providers == {"XNNPACK": 2}

    def test_a_node_between_two_partitions_is_the_engines_own(self):
        def node(index: int, kind: str, inputs: list[int], outputs: list[int]) -> dict:
            return {"index": index, "op_name": kind, "inputs": inputs, "outputs": outputs, "result_types": [np.float32]}

        nodes = [
            node(0, "CONV_2D", [0, 10, 11], [1]),
            node(1, "CONV_2D", [1, 12], [2]),
            node(2, "RESIZE_NEAREST_NEIGHBOR", [2], [3]),
            node(3, "CONCATENATION", [3, 1], [4]),
            node(4, "DELEGATE", [0, 10, 11, 12], [2, 1]),
            node(5, "DELEGATE", [3, 1], [4]),
        ]
        found = {layer.kind: layer.provider for layer in litert_runtime._layers(nodes)}
        assert found == {"CONV_2D": "XNNPACK", "RESIZE_NEAREST_NEIGHBOR": "CPU", "CONCATENATION": "XNNPACK"}

    def test_tflite_runtime_with_numpy_2_says_so(self, tmp_path):
        package = tmp_path / "tflite_runtime"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "interpreter.py").touch()
        code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules["ai_edge_litert"] = None
import numpy; numpy.__version__ = "2.1.0"
from pathlib import Path
from edgeseg import plugins
from edgeseg.errors import NoSuchDevice
runtime = plugins.runtime("litert")
assert runtime.version().endswith("(tflite-runtime)"), runtime.version()
for device in ("auto", "cpu"):
    try:
        runtime.load(Path({str(PROBE / "probe.tflite")!r}), device=device)
    except NoSuchDevice as error:
        assert "needs numpy below 2, found 2.1.0" in str(error), error
    else:
        sys.exit("loaded")
"""
        subprocess.run([sys.executable, "-c", code], check=True)


class TestFake:
    def test_takes_its_specs_from_the_manifest(self, make_bundle):
        bundle = make_bundle()
        for artifact in bundle.artifacts:
            with plugins.runtime("fake").load(read_model(artifact)) as session:
                assert (session.inputs, session.outputs) == (artifact.inputs, artifact.outputs)
                assert session.execution().precision == artifact.precision

    def test_without_a_manifest_it_has_a_default(self):
        with plugins.runtime("fake").load(PROBE / "probe.onnx") as session:
            assert session.inputs[0].shape == session.outputs[0].shape == (1, 1, 256, 256)

    def test_gives_two_classes_and_another_output_size(self):
        from edgeseg.runtimes.fake_runtime import FakeSession
        from edgeseg.types import Precision, TensorSpec

        image = np.zeros((1, 1, 8, 8), np.float32)
        image[..., 4:] = 255
        outputs = (TensorSpec("a", (1, 2, 4, 4)), TensorSpec("b", (1, 2, 2, 3), layout=Layout.NHWC))
        session = FakeSession((TensorSpec("image", image.shape),), outputs, Precision.FP32, "cpu")
        found = session.run({"image": image})
        assert found["a"].shape == (1, 2, 4, 4)
        assert np.array_equal(found["a"][0].argmax(0), [[0, 0, 1, 1]] * 4)
        assert np.array_equal(found["b"][0].argmax(2), [[0, 1], [0, 1]])
