"""CUDA and TensorRT without a GPU: on what the engine was recorded to say where one works, and where it does not.

The texts and profiles with their sources are in tests/runtimes/gpu. Everything else is real: the session that computes
is one of the CPU's.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

import edgeseg
from edgeseg import errors, plugins
from edgeseg.cli import main
from edgeseg.errors import ExecutionMismatch, InferenceError
from edgeseg.runtimes import onnx_runtime, runtime
from edgeseg.runtimes.onnx_providers import PROVIDERS, provider_list
from edgeseg.runtimes.runtime import read_file
from edgeseg.testing import HALF_TOLERANCE, PROBE, RuntimeConformance
from edgeseg.types import Bundle, Format, Precision

FOLDER = Path(__file__).parent / "gpu"
RECORDED = tomllib.loads((FOLDER / "answers.toml").read_text())
PROFILES = tomllib.loads((FOLDER / "profiles.toml").read_text())
ANSWERS = {answer["name"]: answer for answer in RECORDED["answers"]}
STARTS, RUNS = ([a for a in ANSWERS.values() if a["at"] == at] for at in ("start", "run"))
ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
MODEL = PROBE / "probe.onnx"
INT8 = Path(__file__).parent / "models" / "probe-int8.onnx"


class RecordedSession:
    """A session of the CPU that says what one on a GPU would."""

    def __init__(self, engine: RecordedEngine, session: Any, providers: list[str], options: Any) -> None:
        self._engine, self._session, self._providers = engine, session, providers
        self._profile = Path(f"{options.profile_file_prefix}_gpu.json") if options.enable_profiling else None
        self.fallback = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._providers

    def disable_fallback(self) -> None:
        self.fallback = False

    def run(self, names: Any, feeds: Any) -> Any:
        answer = self._engine.answer
        if answer and answer["at"] == "run":
            assert not self.fallback, "the engine would go on with another provider, and tell nobody"
            raise RuntimeError(answer["raised"])
        outputs = self._session.run(names, feeds)
        return [o.astype(np.float16).astype(np.float32) for o in outputs] if self._engine.half else outputs

    def end_profiling(self) -> str:
        assert self._profile is not None
        events = [
            {"cat": "Node", "name": name, "dur": 7, "args": {**ARGUMENTS, "op_name": kind, "provider": provider}}
            | {"input_type_shape": [{dtype: [1, 3, 24, 32]}]}
            for name, kind, provider, dtype in PROFILES[self._engine.profile]["nodes"]
        ]
        self._profile.write_text(json.dumps(events))
        Path(self._session.end_profiling()).unlink()
        return str(self._profile)


ARGUMENTS = {"node_index": "0", "output_type_shape": [{"float": [1, 2, 24, 32]}], "thread_scheduling_stats": {}}


class RecordedEngine:
    """The module onnxruntime as it was recorded.

    Attributes:
        answer: what happens; None where all goes well.
        profile: a key of PROFILES.
        half: whether it computes in fp16.
        asked: providers of each session that was asked for, and the sessions.
    """

    SessionOptions = onnxruntime.SessionOptions
    __version__ = "1.31.1"

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self.profile = "cuda"
        self.half = False
        self.asked: list[tuple[list[Any], RecordedSession]] = []
        self.preloaded = 0

    def get_available_providers(self) -> list[str]:
        return ALL

    def preload_dlls(self) -> None:
        self.preloaded += 1
        print("Failed to load libcublasLt.so.13: as the engine does, to standard output")

    def InferenceSession(self, model: bytes, options: Any, providers: list[Any], **rest: Any) -> Any:
        names = [p if isinstance(p, str) else p[0] for p in providers]
        if names == ["CPUExecutionProvider"]:
            return onnxruntime.InferenceSession(model, options, providers=names, **rest)
        assert rest.pop("enable_fallback") == 0
        answer = self.answer or {}
        if answer.get("at") == "start":
            os.write(2, answer.get("stderr", "").encode())
            print(answer.get("stdout", ""))
            if "raised" in answer:
                raise RuntimeError(answer["raised"])
            names = answer["left"]
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], **rest)
        made = RecordedSession(self, session, names, options)
        self.asked.append((providers, made))
        return made


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RecordedEngine]:
    recorded = RecordedEngine()
    monkeypatch.setattr(onnx_runtime, "_engine", lambda: recorded)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runtime._prove.cache_clear()
    yield recorded
    runtime._prove.cache_clear()


def load(device: str, model: Path = MODEL, **options: object) -> Any:
    return plugins.runtime("onnxruntime").load(model, device=device, threads=1, options=options)


def image(session: Any) -> dict[str, np.ndarray]:
    return {session.inputs[0].name: np.load(PROBE / "input.npy")}


class TestStart:
    @pytest.mark.parametrize("answer", STARTS, ids=lambda a: a["name"])
    def test_a_provider_that_does_not_start_says_why_in_one_line(
        self, engine: RecordedEngine, answer: dict[str, Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        engine.answer = answer
        with pytest.raises(InferenceError) as caught:
            load(answer["device"])
        assert type(caught.value) is getattr(errors, answer.get("error", "NoSuchDevice"))
        message = str(caught.value)
        assert answer["said"] in message
        assert "\n" not in message
        assert not {"onnxruntime_src", "hostname"} & set(message.replace("/", " ").replace("=", " ").split())
        assert capfd.readouterr() == ("", ""), "the engine's own words are in the message"

    @pytest.mark.parametrize("answer", STARTS, ids=lambda a: a["name"])
    def test_it_is_no_device_and_the_next_one_is_taken(self, engine: RecordedEngine, answer: dict[str, Any]) -> None:
        engine.answer = answer
        known = plugins.runtime("onnxruntime")
        assert answer["device"] not in known.devices()
        assert "cpu" in known.devices()
        with known.load(MODEL, threads=1) as session:
            assert session.device == known.devices()[0]

    def test_libraries_from_pip_are_loaded_first(
        self, engine: RecordedEngine, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with load("cpu"):
            assert engine.preloaded == 0
        with load("cuda") as session:
            assert engine.preloaded == 1
            assert session.device == "cuda"
        assert capfd.readouterr() == ("", "")

    def test_engines_before_1_21_have_nothing_to_load_them_with(
        self, engine: RecordedEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(RecordedEngine, "preload_dlls")
        load("cuda").close()


class TestRun:
    @pytest.mark.parametrize("answer", RUNS, ids=lambda a: a["name"])
    def test_a_failure_is_an_error_and_no_change_of_the_provider(
        self, engine: RecordedEngine, answer: dict[str, Any]
    ) -> None:
        with load(answer["device"]) as session:
            engine.answer = answer
            with pytest.raises(InferenceError) as caught:
                session.run(image(session))
        assert str(caught.value).startswith("onnxruntime cannot run the model: ")
        assert answer["said"] in str(caught.value)
        assert "hostname" not in str(caught.value)

    def test_results_come_from_the_session(self, engine: RecordedEngine) -> None:
        with load("cuda") as session:
            output = session.run(image(session))[session.outputs[0].name]
            assert np.abs(output - np.load(PROBE / "expected.npy")).max() < 1e-5
            assert not engine.asked[-1][1].fallback


class TestOptions:
    @pytest.mark.parametrize(
        ("device", "model", "options", "cuda", "tensorrt"),
        [
            ("cuda", MODEL, {}, {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"}, None),
            (
                "cuda",
                MODEL,
                {"cuda_conv_search": "HEURISTIC", "cuda_tf32": True, "cuda_memory_mb": 512},
                {
                    "cudnn_conv_algo_search": "HEURISTIC",
                    "use_tf32": "1",
                    "gpu_mem_limit": "536870912",
                    "arena_extend_strategy": "kSameAsRequested",
                },
                None,
            ),
            (
                "tensorrt",
                MODEL,
                {"tensorrt_engine_cache": False},
                {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"},
                {"trt_max_workspace_size": "1073741824", "trt_fp16_enable": "0", "trt_int8_enable": "0"},
            ),
            (
                "tensorrt",
                INT8,
                {
                    "tensorrt_engine_cache": False,
                    "tensorrt_workspace_mb": 256,
                    "tensorrt_fp16": True,
                    "tensorrt_builder_level": 5,
                    "tensorrt_dla_core": 1,
                },
                {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"},
                {
                    "trt_max_workspace_size": "268435456",
                    "trt_fp16_enable": "1",
                    "trt_int8_enable": "1",
                    "trt_builder_optimization_level": "5",
                    "trt_dla_enable": "1",
                    "trt_dla_core": "1",
                },
            ),
            (
                "tensorrt",
                INT8,
                {"tensorrt_engine_cache": False, "tensorrt_int8": False},
                {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"},
                {"trt_max_workspace_size": "1073741824", "trt_fp16_enable": "0", "trt_int8_enable": "0"},
            ),
        ],
    )
    def test_providers_get_them_as_the_engine_documents_them(
        self,
        engine: RecordedEngine,
        device: str,
        model: Path,
        options: dict[str, Any],
        cuda: dict[str, str],
        tensorrt: dict[str, str] | None,
    ) -> None:
        load(device, model, **options).close()
        providers, _ = engine.asked[-1]
        expected: list[Any] = [("CUDAExecutionProvider", {"device_id": "0", **cuda}), "CPUExecutionProvider"]
        if tensorrt is not None:
            expected.insert(0, ("TensorrtExecutionProvider", {"device_id": "0", **tensorrt}))
        assert providers == expected

    def test_every_key_is_one_that_the_provider_knows(self, engine: RecordedEngine, tmp_path: Path) -> None:
        options = {
            "cuda_memory_mb": 64,
            "tensorrt_builder_level": 3,
            "tensorrt_cache_dir": str(tmp_path),
            "tensorrt_dla_core": 0,
        }
        (_, tensorrt), (_, cuda), _ = provider_list(read_file(INT8), "tensorrt", options, "1.31.1")
        assert set(cuda) <= set(RECORDED["keys"]["cuda"])
        assert set(tensorrt) <= set(RECORDED["keys"]["tensorrt"])
        assert all(isinstance(value, str) for value in (*cuda.values(), *tensorrt.values()))

    def test_engines_of_other_weights_options_or_versions_are_kept_apart(
        self, engine: RecordedEngine, tmp_path: Path
    ) -> None:
        model = read_file(MODEL)
        other = SimpleNamespace(name=model.name, files=(model.files[0].replace(b"logits", b"LOGITS"),))
        kept = []
        for kind, options, version in (
            (model, {}, "1.31.1"),
            (other, {}, "1.31.1"),
            (model, {"tensorrt_fp16": True}, "1.31.1"),
            (model, {"tensorrt_dla_core": 0}, "1.31.1"),
            (model, {}, "1.31.2"),
        ):
            told = {"tensorrt_cache_dir": str(tmp_path), **options}
            (_, tensorrt), *_ = provider_list(kind, "tensorrt", told, version)  # type: ignore[arg-type]
            folder = Path(tensorrt["trt_engine_cache_path"])
            assert folder.parent == Path(tensorrt["trt_timing_cache_path"]) == tmp_path
            assert folder.stat().st_mode & 0o777 == 0o700, "what lies there is executed"
            kept.append(folder)
        assert len(set(kept)) == len(kept)
        again = provider_list(model, "tensorrt", {"tensorrt_cache_dir": str(tmp_path)}, "1.31.1")[0][1]
        assert Path(again["trt_engine_cache_path"]) == kept[0]

    def test_the_cache_is_the_users(self, engine: RecordedEngine, tmp_path: Path) -> None:
        load("tensorrt").close()
        (_, told), *_ = engine.asked[-1][0]
        assert Path(told["trt_engine_cache_path"]).parent == tmp_path / "cache" / "edgeseg" / "tensorrt"


class TestExecution:
    @pytest.mark.parametrize(
        ("profile", "model", "options", "provider", "precision", "providers"),
        [
            ("cuda", MODEL, {}, "CUDAExecutionProvider", "fp32", {"CUDAExecutionProvider": 3}),
            (
                "cuda-partly",
                MODEL,
                {},
                "CUDAExecutionProvider",
                "fp32",
                {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 1},
            ),
            ("cuda-int8", INT8, {}, "CUDAExecutionProvider", "fp32", {"CUDAExecutionProvider": 2}),
            ("tensorrt", MODEL, {}, "TensorrtExecutionProvider", "fp32", {"TensorrtExecutionProvider": 1}),
            (
                "tensorrt",
                MODEL,
                {"tensorrt_fp16": True},
                "TensorrtExecutionProvider",
                "fp16",
                {"TensorrtExecutionProvider": 1},
            ),
            (
                "tensorrt-partly",
                INT8,
                {},
                "TensorrtExecutionProvider",
                "int8",
                {"TensorrtExecutionProvider": 2, "CUDAExecutionProvider": 1},
            ),
        ],
    )
    def test_layers_are_counted_where_they_ran(
        self,
        engine: RecordedEngine,
        profile: str,
        model: Path,
        options: dict[str, object],
        provider: str,
        precision: str,
        providers: dict[str, int],
    ) -> None:
        engine.profile = profile
        with load(profile.split("-")[0], model, **options) as session:
            execution = session.execution()
        assert (execution.provider, execution.precision, execution.providers) == (provider, precision, providers)
        assert execution.layers == sum(providers.values())
        assert execution.int8_layers == (2 if precision == "int8" else 0)

    @pytest.mark.parametrize(
        ("profile", "precision", "options", "said"),
        [
            ("cuda-nothing", "fp32", {}, "2 of 3 layers ran on CPUExecutionProvider, asked for was cuda"),
            ("cuda-int8", "int8", {}, "an int8 artifact ran in fp32"),
            ("tensorrt", "fp32", {"tensorrt_fp16": True}, "an fp32 artifact ran in fp16"),
        ],
    )
    def test_strict_refuses_what_was_not_asked_for(
        self,
        engine: RecordedEngine,
        make_bundle: Callable[..., Bundle],
        profile: str,
        precision: str,
        options: dict[str, object],
        said: str,
    ) -> None:
        engine.profile = profile
        bundle = make_bundle((Format.ONNX, Precision.FP32), (Format.ONNX, Precision.INT8))
        asked = {"runtime": "onnxruntime", "device": profile.split("-")[0], "precision": precision}
        told = {"onnxruntime": options}
        edgeseg.load(bundle, **asked, options=told).close()
        with pytest.raises(ExecutionMismatch, match=said):
            edgeseg.load(bundle, **asked, options=told, strict=True)

    def test_strict_takes_what_was(self, engine: RecordedEngine, make_bundle: Callable[..., Bundle]) -> None:
        bundle = make_bundle((Format.ONNX, Precision.FP32))
        with edgeseg.load(bundle, runtime="onnxruntime", device="cuda", strict=True) as segmenter:
            assert segmenter.execution.providers == {"CUDAExecutionProvider": 3}


class TestConformance(RuntimeConformance):
    """The whole suite, on a device that computes in fp16."""

    runtime_name = "onnxruntime"
    artifact = MODEL
    device = "tensorrt"
    tolerances = {"tensorrt": HALF_TOLERANCE, "cuda": HALF_TOLERANCE}

    @pytest.fixture(autouse=True)
    def half(self, engine: RecordedEngine) -> None:
        engine.half, engine.profile = True, "tensorrt"


def test_the_tolerance_of_fp32_is_not_that_of_fp16(engine: RecordedEngine) -> None:
    class Exact(RuntimeConformance):
        runtime_name, artifact, device = "onnxruntime", MODEL, "cuda"

    engine.half = True
    with pytest.raises(AssertionError, match="Mismatched elements"):
        Exact().test_output_is_as_expected_every_time()
    engine.half = False
    Exact().test_output_is_as_expected_every_time()


class TestLabel:
    def test_a_gpu_that_works_is_usable_and_still_not_verified(self, engine: RecordedEngine) -> None:
        proofs = {proof.name: proof for proof in plugins.runtime("onnxruntime").proofs()}
        assert {name: (p.usable, p.verified) for name, p in proofs.items()} == {
            "tensorrt": (True, False),
            "cuda": (True, False),
            "cpu": (True, True),
        }
        assert proofs["cuda"].executed.provider == PROVIDERS["cuda"]

    def test_people_see_it(self, engine: RecordedEngine, bundle: Path) -> None:
        listed = CliRunner().invoke(main, ["runtimes"], env={"COLUMNS": "300"})
        (line,) = (line for line in listed.output.splitlines() if " cuda " in line)
        assert "not verified on hardware" in line
        assert " yes " in line
        words = ["verify", str(bundle), "--runtime", "onnxruntime", "--device", "cuda", "--no-isolate"]
        verified = CliRunner().invoke(main, words)
        assert "onnxruntime cuda: not verified on hardware by edgeseg" in verified.output
