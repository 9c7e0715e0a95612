from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseg import plugins
from edgeseg.engine_options import Options
from edgeseg.errors import BadInput, InferenceError, MissingDependency
from edgeseg.evidence import Execution
from edgeseg.runtimes.engine_errors import engine_errors
from edgeseg.runtimes.fake_runtime import FakeRuntime
from edgeseg.runtimes.onnx_runtime import OnnxRuntime
from edgeseg.runtimes.runtime import EngineRuntime, Layer, check_model, read_file, tally
from edgeseg.testing import PROBE
from edgeseg.types import Format, Model


def conv(precision: str, provider: str = "A") -> Layer:
    return Layer("Conv", provider, precision)


class TestTally:
    def test_conversions_are_not_layers(self):
        kinds = ["Reorder", "QuantizeLinear", "Const", "Input", "TRANSPOSE", "DEQUANTIZE", "FakeQuantize", "Convert"]
        layers = [Layer(kind, "A", "fp32") for kind in kinds]
        assert tally([*layers, conv("fp32")], "A") == Execution("A", "fp32", 0, 1, {"A": 1}, {"fp32": 1})

    def test_precision_is_that_of_at_least_half_of_the_convolutions(self):
        rest = [Layer("Add", "A", "int8")] * 9
        assert tally([conv("int8"), conv("fp32"), *rest], "A").precision == "int8"
        assert tally([conv("int8"), conv("fp16"), conv("fp16"), *rest], "A").precision == "fp16"

    def test_counts_int8_layers_of_every_kind(self):
        found = tally([conv("int8"), Layer("Add", "B", "int8"), conv("fp32")], "A")
        assert (found.int8_layers, found.layers, found.providers) == (2, 3, {"A": 2, "B": 1})
        assert found.provider == "A"

    def test_without_convolutions_all_layers_count(self):
        assert tally([Layer("Relu", "A", "fp16")], "A").precision == "fp16"

    def test_a_model_without_layers(self):
        assert tally([], "CPU") == Execution("CPU", "fp32", 0, 0, {})


class TestEngineErrors:
    def test_one_line_without_noise_and_with_its_cause(self):
        cause = RuntimeError("Exception from a.cpp:1:\nno\n  such   layer\n")
        with pytest.raises(InferenceError) as caught, engine_errors("x cannot load y", r"Exception from \S+:\d+:"):
            raise cause
        assert str(caught.value) == "x cannot load y: no such layer"
        assert caught.value.__cause__ is cause

    def test_a_silent_error_names_its_type(self):
        with pytest.raises(InferenceError, match="load: MemoryError"), engine_errors("load"):
            raise MemoryError

    def test_own_errors_and_interrupts_pass(self):
        with pytest.raises(BadInput), engine_errors("load"):
            raise BadInput("mine")
        with pytest.raises(KeyboardInterrupt), engine_errors("load"):
            raise KeyboardInterrupt


class TestCheckModel:
    @pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
    def test_accepts_what_the_converters_write(self, suffix):
        model = read_file(PROBE / f"probe{suffix}")
        check_model(model, FakeRuntime())
        assert model.format in suffix.replace("xml", "openvino")
        assert len(model.files) == (2 if suffix == ".xml" else 1)

    def test_another_runtimes_file(self):
        with pytest.raises(InferenceError, match=r"onnxruntime cannot load probe.xml, expected a file named \*.onnx"):
            check_model(read_file(PROBE / "probe.xml"), OnnxRuntime())

    @pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"<html>", "not an? onnx model")])
    def test_foreign_content(self, content, said):
        with pytest.raises(InferenceError, match=said):
            check_model(Model("a.onnx", Format.ONNX, (content,)), OnnxRuntime())

    def test_weights_in_other_files_are_not_fetched(self, tmp_path):
        import onnx

        model = onnx.load(PROBE / "probe.onnx")
        onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, size_threshold=0, location="weights")
        assert (tmp_path / "weights").stat().st_size
        with pytest.raises(InferenceError, match=r"a\.onnx keeps weights in files outside of it: save it as one file"):
            OnnxRuntime().load(tmp_path / "a.onnx")


class Lying(OnnxRuntime):
    """Its engine runs the wrong model: a device that answers, with wrong numbers."""

    def _open(self, model: Model, device: str, threads: int | None, options: Options):
        return super()._open(read_file(Path(__file__).parent / "models" / "wrong.onnx"), device, threads, options)


class Skewed(OnnxRuntime):
    def _open(self, model: Model, device: str, threads: int | None, options: Options):
        session = super()._open(model, device, threads, options)
        infer = session._infer
        session._infer = lambda feeds: {name: output + 0.02 for name, output in infer(feeds).items()}
        return session


class TestProof:
    def test_wrong_numbers_are_no_proof(self):
        proof = next(p for p in Skewed().proofs() if p.name == "cpu")
        assert not proof.usable
        assert "off by 0.02" in proof.reason
        assert Skewed().devices() == ()

    def test_an_engine_that_cannot_load_is_no_proof(self):
        proof = next(p for p in Lying().proofs() if p.name == "cpu")
        assert "wrong.onnx" in proof.reason

    def test_is_given_once_per_process(self):
        assert OnnxRuntime().proofs()[0] is OnnxRuntime().proofs()[0]

    def test_labels_hardware_that_was_never_tested(self):
        assert {p.name for p in OnnxRuntime().proofs() if not p.verified} == {"cuda", "tensorrt"}


@pytest.mark.parametrize(("name", "module"), [
    ("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("litert", "ai_edge_litert"),
])  # fmt: skip
class TestMissingEngine:
    def test_says_how_to_install_it(self, monkeypatch, name, module):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.interpreter", None)
        runtime = plugins.runtime(name)
        for call in (runtime.version, runtime.devices, lambda: runtime.load(PROBE / "probe.onnx")):
            with pytest.raises(MissingDependency, match=r"pip install 'edgeseg\[") as caught:
                call()
            assert isinstance(runtime, EngineRuntime)
            assert runtime.extra in caught.value.command

    def test_importing_the_runtime_imports_no_engine(self, name, module):
        code = f"import sys; from edgeseg import plugins; plugins.runtime({name!r}); exit({module!r} in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_bug_inside_the_engine_is_not_a_missing_engine(self, tmp_path, name, module):
        package = tmp_path / module
        package.mkdir()
        for file in ("__init__.py", "interpreter.py"):
            (package / file).write_text("import a_module_that_the_engine_forgot\n")
        code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from edgeseg import plugins
from edgeseg.errors import MissingDependency
try:
    plugins.runtime({name!r}).version()
except MissingDependency:
    sys.exit("taken for missing")
except ModuleNotFoundError as error:
    assert error.name == "a_module_that_the_engine_forgot"
"""
        subprocess.run([sys.executable, "-c", code], check=True)


def test_feeds_of_another_type_are_named():
    with OnnxRuntime().load(PROBE / "probe.onnx", threads=1) as session:
        image = np.zeros((1, 3, 24, 32), np.float64)
        with pytest.raises(BadInput, match="'image' is float64, expected a numpy array of float32"):
            session.run({"image": image})
        with pytest.raises(BadInput, match="missing, got picture"):
            session.run({"picture": image})
        with pytest.raises(BadInput, match=r"shape \(1, 3, 24, 33\), expected \(1, 3, 24, 32\)"):
            session.run({"image": np.zeros((1, 3, 24, 33), np.float32)})


def test_an_engine_is_loaded_without_opencv():
    code = (
        "import sys; from pathlib import Path; from edgeseg import plugins; "
        f"plugins.runtime('litert').load(Path({str(PROBE / 'probe.tflite')!r})).close(); "
        "assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
