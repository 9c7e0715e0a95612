"""Options and plans: what an engine is told is what it does, and what it does not know is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeseg
from edgeseg import plugins
from edgeseg.engine_options import OPTIONS, EngineChoice, check_options, choice_of, with_options
from edgeseg.errors import BadInput, InferenceError, NoSuchDevice
from edgeseg.runtimes import choice as race
from edgeseg.runtimes.fallback import load_chain
from edgeseg.runtimes.footprint import measure_footprint
from edgeseg.runtimes.openvino_runtime import _PROPERTIES
from edgeseg.testing import PROBE
from edgeseg.types import Bundle, Format, Precision

MakeBundle = Callable[..., Bundle]
FP32, INT8 = Precision.FP32, Precision.INT8


def load(runtime: str, file: str, *, threads: int = 1, **options: object) -> Any:
    return plugins.runtime(runtime).load(PROBE / file, device="cpu", threads=threads, options=options)


def right(session: Any) -> bool:
    source, sink = session.inputs[0], session.outputs[0]
    image, expected = np.load(PROBE / "input.npy"), np.load(PROBE / "expected.npy")
    if source.layout == "NHWC":
        image, expected = image.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1)
    return bool(np.abs(session.run({source.name: image})[sink.name] - expected).max() < 0.01)


class TestCheck:
    @pytest.mark.parametrize(
        ("runtime", "options", "said"),
        [
            ("litert", {"delegat": "xnnpack"}, "unknown option 'delegat' of litert, did you mean 'delegate'?"),
            ("litert", {"delegate": "vx"}, "litert's delegate is 'vx', expected one of xnnpack, none"),
            ("onnxruntime", {"trt_fp16": True}, "unknown option 'trt_fp16' of onnxruntime, did you mean"),
            ("onnxruntime", {"tensorrt_fp16": 1}, "tensorrt_fp16 is 1, expected true or false"),
            ("onnxruntime", {"tensorrt_builder_level": 6}, "is 6, expected a whole number from 0 to 5"),
            ("onnxruntime", {"tensorrt_workspace_mb": "1GB"}, "is '1GB', expected a whole number from 1 to"),
            ("onnxruntime", {"tensorrt_workspace_mb": True}, "is True, expected a whole number from 1 to"),
            ("onnxruntime", {"tensorrt_cache_dir": ""}, "is '', expected a text"),
            ("openvino", {"streams": 0}, "openvino's streams is 0, expected a whole number from 1 to 256"),
            (
                "openvino",
                {"zzz": 1},
                "unknown option 'zzz' of openvino, expected one of cache_dir, ",
            ),
            ("fake", {"streams": 1}, "unknown option 'streams' of fake, there is none"),
        ],
    )
    def test_names_the_engine_the_option_and_what_was_expected(
        self, runtime: str, options: Mapping[str, object], said: str
    ) -> None:
        with pytest.raises(BadInput) as caught:
            check_options(runtime, options)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("runtime", [*plugins.ENGINES, "fake"])
    def test_every_runtime_does(self, runtime: str) -> None:
        file = {"openvino": "probe.xml", "onnxruntime": "probe.onnx"}.get(runtime, "probe.tflite")
        with pytest.raises(BadInput, match=f"unknown option 'speed' of {runtime}"):
            load(runtime, file, speed="high")

    def test_a_runtime_that_is_none(self, make_bundle: MakeBundle) -> None:
        with pytest.raises(BadInput, match="unknown runtime 'openvno' in options, did you mean 'openvino'"):
            edgeseg.load(make_bundle(), options={"openvno": {"streams": 1}})


class TestOpenVino:
    def test_every_option_is_a_property_of_the_engine(self) -> None:
        assert set(_PROPERTIES) == set(OPTIONS["openvino"])

    def test_the_engine_has_them(self, tmp_path: Path) -> None:
        cache = str(tmp_path / "cache")
        told = {"performance_hint": "THROUGHPUT", "streams": 2, "cache_dir": cache}
        with load("openvino", "probe.xml", threads=2, **told) as session:
            model = session._model
            assert model.get_property("PERFORMANCE_HINT") == "THROUGHPUT"
            assert model.get_property("NUM_STREAMS") == 2
            assert list(Path(cache).glob("*.blob")), "the compiled model is kept"
            assert right(session)

    def test_a_lower_precision_is_what_runs_and_what_is_told(self) -> None:
        if "BF16" not in _capabilities():
            pytest.skip("this CPU has no bf16")
        with load("openvino", "probe.xml", inference_precision="bf16") as session:
            assert session.execution().precision == "bf16"

    def test_without_options_it_is_fp32_in_one_stream(self) -> None:
        with load("openvino", "probe.xml") as session:
            assert session._model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
            assert session._model.get_property("NUM_STREAMS") == 1


def _capabilities() -> list[str]:
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class TestLiteRt:
    @pytest.mark.parametrize(("delegate", "provider"), [("xnnpack", "XNNPACK"), ("none", "CPU")])
    def test_the_delegate(self, delegate: str, provider: str) -> None:
        with load("litert", "probe.tflite", delegate=delegate) as session:
            assert session.execution().providers == {provider: 2}
            assert right(session)


class TestLoad:
    @pytest.mark.parametrize("isolate", [False, True])
    def test_options_reach_the_engine(self, make_bundle: MakeBundle, isolate: bool) -> None:
        bundle = make_bundle((Format.TFLITE, FP32))
        told = {"litert": {"delegate": "none"}}
        with edgeseg.load(bundle, options=told, isolate=isolate) as segmenter:
            assert segmenter.execution.providers == {"CPU": 2}
        with edgeseg.load(bundle, isolate=isolate) as segmenter:
            assert segmenter.execution.providers == {"XNNPACK": 2}, "another question than the one before"

    def test_an_engine_of_its_own_process_has_the_cpu_only(self, make_bundle: MakeBundle) -> None:
        with pytest.raises(NoSuchDevice, match=r"has the CPU only, asked for was cuda: .*--no-isolate"):
            edgeseg.load(make_bundle(), runtime="onnxruntime", device="cuda", isolate=True)
        with pytest.raises(NoSuchDevice, match="has no device 'abacus'"):
            edgeseg.load(make_bundle(name="other"), runtime="onnxruntime", device="abacus", isolate=True)

    def test_a_measurement_of_its_cost_has_them_too(self, make_bundle: MakeBundle) -> None:
        (artifact,) = make_bundle((Format.TFLITE, FP32)).artifacts
        assert measure_footprint(artifact, "litert", "cpu", 1, {"delegate": "none"}).load_ms > 0
        with pytest.raises(InferenceError, match="unknown option 'x' of litert"):
            measure_footprint(artifact, "litert", "cpu", 1, {"x": 1})

    def test_options_without_a_plan_still_race(self, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
        raced: list[int] = []
        run = race._race
        monkeypatch.setattr(race, "_race", lambda loaded, *rest: (raced.append(len(loaded)), run(loaded, *rest))[1])
        edgeseg.load(make_bundle(), precision="fp32", options={"openvino": {"streams": 1}}).close()
        assert raced == [3]


class TestPlan:
    def test_its_order_is_kept_and_nothing_else_is_loaded(
        self, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        open_session = race.open_session

        def watching(bundle: Bundle, artifact: Any, runtime: str, **rest: Any) -> Any:
            opened.append(f"{artifact.name} on {runtime}")
            return open_session(bundle, artifact, runtime, **rest)

        monkeypatch.setattr(race, "open_session", watching)
        plan = [EngineChoice("litert", precisions=("fp32", "int8"), threads=2), EngineChoice("openvino")]
        with edgeseg.load(make_bundle(), plan=plan) as segmenter:
            assert (segmenter.runtime, segmenter.artifact.precision) == ("litert", "fp32")
            assert segmenter._session._source[1] == 2, "its threads count"  # type: ignore[attr-defined]
        assert opened == ["tflite-fp32 on litert"]

    def test_what_does_not_load_gives_way_and_says_why(self, make_bundle: MakeBundle) -> None:
        plan = [EngineChoice("onnxruntime", devices=("tensorrt", "cuda")), EngineChoice("litert")]
        with edgeseg.load(make_bundle(), plan=plan) as segmenter:
            assert segmenter.runtime == "litert"
            said = "onnxruntime can use none of the devices planned for (tensorrt, cuda); usable here: cpu"
            assert said in segmenter.skipped["onnx-fp32 on onnxruntime"]

    def test_the_first_device_that_works_here(self, make_bundle: MakeBundle) -> None:
        plan = [EngineChoice("onnxruntime", devices=("tensorrt", "cuda", "cpu"))]
        with edgeseg.load(make_bundle(), plan=plan) as segmenter:
            assert segmenter.device == "cpu"
        with pytest.raises(NoSuchDevice, match="no CUDAExecutionProvider"):
            edgeseg.load(make_bundle(name="other"), plan=[EngineChoice("onnxruntime", devices=("cuda",))])

    def test_only_its_precisions_unless_one_is_asked_for(self, make_bundle: MakeBundle) -> None:
        bundle, plan = make_bundle((Format.TFLITE, FP32)), [EngineChoice("litert", precisions=("int8",))]
        with pytest.raises(BadInput, match="has no artifact for runtime auto"):
            edgeseg.load(bundle, plan=plan)
        edgeseg.load(bundle, plan=plan, precision="fp32").close()

    def test_a_runtime_that_it_does_not_name_is_taken_when_asked_for(self, make_bundle: MakeBundle) -> None:
        with edgeseg.load(make_bundle(), runtime="openvino", plan=[EngineChoice("litert")]) as segmenter:
            assert segmenter.runtime == "openvino"

    def test_a_chain_is_in_its_order(self, bundle: Path) -> None:
        plan = [EngineChoice("onnxruntime", precisions=("int8",)), EngineChoice("litert", precisions=("fp32",))]
        chain = load_chain(bundle, plan=plan)
        try:
            assert [(s.runtime, str(s.artifact.precision)) for s in chain] == [
                ("onnxruntime", "int8"),
                ("litert", "fp32"),
            ]
        finally:
            for segmenter in chain:
                segmenter.close()

    def test_options_count_before_those_of_the_plan(self) -> None:
        plan = [EngineChoice("openvino", options={"streams": 1, "performance_hint": "LATENCY"})]
        told = with_options(plan, {"openvino": {"streams": 2}, "litert": {"delegate": "none"}})
        assert [c.runtime for c in told] == ["openvino", "litert"]
        assert choice_of(told, "openvino").options == {"streams": 2, "performance_hint": "LATENCY"}
        assert choice_of(told, "litert").options == {"delegate": "none"}
        assert choice_of(told, "onnxruntime") == EngineChoice("onnxruntime")
