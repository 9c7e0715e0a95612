from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest

import edgeseg
from edgeseg import plugins
from edgeseg.engine_options import Options
from edgeseg.errors import (
    BadInput,
    BundleError,
    ExecutionMismatch,
    InferenceError,
    MissingDependency,
    NoSuchDevice,
    SelfTestFailed,
)
from edgeseg.evidence import Execution
from edgeseg.runtimes import choice, onnx_providers
from edgeseg.runtimes.fake_runtime import FakeRuntime, FakeSession
from edgeseg.runtimes.onnx_runtime import OnnxRuntime, OnnxSession
from edgeseg.runtimes.openvino_runtime import OpenVinoSession
from edgeseg.types import Box, Format, Model, Precision, ScanArea

FP32, INT8 = Precision.FP32, Precision.INT8


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
class TestEachEngine:
    def test_gives_the_mask_of_the_source(self, make_bundle, frame, mask, runtime):
        with edgeseg.load(make_bundle(), runtime=runtime, precision="fp32") as segmenter:
            assert (segmenter.runtime, segmenter.device) == (runtime, "cpu")
            assert segmenter.classes == ("background", "bright")
            assert segmenter.artifact.precision is FP32
            result = segmenter(frame)
            assert result.mask.dtype == np.uint8
            assert np.array_equal(result.mask, mask)
            assert result.execution.precision == "fp32"

    def test_a_gray_frame_of_any_size(self, make_bundle, runtime):
        frame = np.zeros((300, 421), np.uint8)
        cv2.circle(frame, (200, 140), 90, 255, -1)
        with edgeseg.load(make_bundle(), runtime=runtime) as segmenter:
            mask = segmenter(frame).mask
            assert mask.shape == frame.shape
            assert ((mask == 1) == (frame > 0)).mean() > 0.95
            assert segmenter(np.zeros((1, 1), np.uint8)).mask.shape == (1, 1)

    def test_int8_is_chosen_when_asked_for(self, make_bundle, frame, mask, runtime):
        with edgeseg.load(make_bundle(), runtime=runtime, precision=INT8) as segmenter:
            result = segmenter(frame)
            assert segmenter.artifact.precision is INT8
            assert result.execution.precision == "int8"
            assert (result.mask == mask).mean() > 0.97


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert", "fake"])
class TestAreaAndConfidence:
    def test_the_network_looks_at_the_area_alone(self, make_bundle, frame, mask, runtime):
        around = np.full((60, 70, 3), 255, np.uint8)
        around[10:34, 20:52] = frame
        box = Box(20, 10, 32, 24)
        with edgeseg.load(make_bundle(), runtime=runtime, precision="fp32") as segmenter:
            result = segmenter(around, area=box)
            inside = segmenter(frame).mask
            assert segmenter(around).area is None
        assert result.area == box
        expected = np.zeros((60, 70), np.uint8)
        expected[10:34, 20:52] = inside
        assert np.array_equal(result.mask, expected)
        assert runtime == "fake" or np.array_equal(inside, mask)

    def test_confidence_is_given_where_it_is_asked_for(self, make_bundle, frame, runtime):
        with edgeseg.load(make_bundle(), runtime=runtime, precision="int8") as segmenter:
            assert segmenter(frame).confidence is None
            result = segmenter(frame, area=Box(3, 4, 20, 15), confidence=True)
            again = segmenter(frame[:, ::-1], confidence=True)
        assert (result.confidence.shape, result.confidence.dtype) == ((2, 24, 32), np.float32)
        assert np.array_equal(result.confidence.argmax(0), result.mask)
        assert np.allclose(result.confidence.sum(0), 1, atol=1e-6)
        assert (result.confidence[0, :4] == 1).all()
        assert not np.array_equal(again.confidence, result.confidence)


class TestScanArea:
    def bundle(self, make_bundle, area):
        opened = make_bundle()
        preprocess = replace(opened.preprocess, scan_area=area)
        return replace(opened, manifest=replace(opened.manifest, preprocess=preprocess))

    def test_that_of_the_bundle_is_used(self, make_bundle, frame, mask):
        wide = np.concatenate([np.full_like(frame, 255), frame], axis=1)
        bundle = self.bundle(make_bundle, ScanArea(left=0.5, width=0.5))
        with edgeseg.load(bundle, runtime="onnxruntime", precision="fp32") as segmenter:
            result = segmenter(wide)
            assert result.area == Box(32, 0, 32, 24)
            assert np.array_equal(result.mask[:, 32:], mask)
            assert not result.mask[:, :32].any()
            assert segmenter(wide, area=Box(0, 0, 64, 24)).area == Box(0, 0, 64, 24)

    def test_an_area_outside_the_frame_is_bad_input(self, make_bundle, frame):
        with edgeseg.load(make_bundle(), runtime="litert") as segmenter:
            with pytest.raises(BadInput, match="expected a box of at least one pixel inside the frame of 32 x 24"):
                segmenter(frame, area=Box(1, 0, 32, 24))
            assert segmenter(frame).area is None


def test_measures_and_contours_are_those_of_the_mask(make_bundle, frame):
    from edgeseg.measure import contours, measure

    with edgeseg.load(make_bundle(), runtime="litert", precision="fp32") as segmenter:
        result = segmenter(frame)
    assert result.measure(0.2) == measure(result.mask, result.classes, 0.2)
    assert result.measure()[0].area_mm2 is None
    found, expected = result.contours(), contours(result.mask, ("background", "bright"))
    assert len(found[0]) == len(expected[0]) > 0
    assert all(np.array_equal(a, b) for a, b in zip(found[0], expected[0], strict=True))


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_frames_are_written_where_the_engine_reads_and_nothing_is_copied(make_bundle, frame, mask, runtime, isolate):
    with edgeseg.load(make_bundle(), runtime=runtime, precision="fp32", isolate=isolate) as segmenter:
        session, seen = segmenter._session, []
        infer = session._infer
        session._infer = lambda feeds: (seen.append(feeds), infer(feeds))[1]
        assert np.array_equal(segmenter(frame).mask, mask)
        assert not segmenter(np.zeros_like(frame)).mask.any()
        assert np.array_equal(segmenter(frame).mask, mask)
        assert seen[0] is seen[1] is seen[2] is session.feeds()


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_the_engine_may_be_asked_what_it_runs_while_it_runs(make_bundle, frame, mask, runtime, isolate):
    stop = Event()

    def go(segmenter: edgeseg.Segmenter) -> int:
        right = 0
        while not stop.is_set():
            assert np.array_equal(segmenter(frame).mask, mask)
            right += 1
        return right

    with (
        edgeseg.load(make_bundle(), runtime=runtime, precision="fp32", isolate=isolate) as segmenter,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(go, segmenter)
        try:
            found = [segmenter._session._inspect() for _ in range(10)]
        finally:
            stop.set()
        assert running.result(60) > 0
    assert all(execution == found[0] for execution in found)


def test_an_engine_that_cannot_run_is_found_out_by_load(make_bundle, monkeypatch):
    def fail(self, feeds):
        raise InferenceError("out of memory")

    closed = []
    monkeypatch.setattr(OnnxSession, "_infer", fail)
    monkeypatch.setattr(OnnxSession, "_release", lambda self: closed.append(self))
    with pytest.raises(InferenceError, match="out of memory"):
        edgeseg.load(make_bundle((Format.ONNX, FP32)))
    assert len(closed) == 1


def test_timing_has_all_parts(make_bundle, frame):
    with edgeseg.load(make_bundle((Format.ONNX, FP32))) as segmenter:
        start = time.perf_counter()
        timing = segmenter(frame).timing
        elapsed = (time.perf_counter() - start) * 1e3
    assert min(timing.preprocess, timing.infer, timing.postprocess) > 0
    assert timing.total == timing.preprocess + timing.infer + timing.postprocess <= elapsed


def test_execution_is_remembered_after_close(make_bundle, frame):
    with edgeseg.load(make_bundle((Format.ONNX, FP32))) as segmenter:
        result = segmenter(frame)
        known = result.execution
    assert result.execution is known
    with pytest.raises(InferenceError, match="closed"):
        segmenter(frame)
    segmenter.close()


def test_a_path_is_opened_and_checked(make_bundle, frame, mask):
    path = make_bundle().path
    with edgeseg.load(str(path), runtime="litert", precision="fp32") as segmenter:
        assert np.array_equal(segmenter(frame).mask, mask)
    (path / "artifacts" / "onnx-fp32.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError):
        edgeseg.load(path)


@pytest.mark.parametrize(
    "bad", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8), np.zeros(8, np.uint8), [[0]]]
)
def test_bad_frames(make_bundle, bad):
    with edgeseg.load(make_bundle((Format.TFLITE, FP32))) as segmenter, pytest.raises(BadInput, match="frame"):
        segmenter(bad)


def test_the_fake_needs_no_engine_and_makes_a_mask(make_bundle, frame, mask):
    with edgeseg.load(make_bundle(), runtime="fake") as segmenter:
        found = segmenter(frame).mask
        assert segmenter.runtime == "fake"
    assert ((found > 0) == (mask > 0)).mean() > 0.9
    assert 0 < found.mean() < 0.9


class TestWhatDoesNotFit:
    def test_unknown_runtime(self, make_bundle):
        with pytest.raises(BadInput, match=r"unknown runtime 'tvm', expected auto or one of .*openvino"):
            edgeseg.load(make_bundle(), runtime="tvm")

    def test_unknown_precision(self, make_bundle):
        with pytest.raises(BadInput, match="unknown precision 'int4', expected one of fp32, fp16, int8"):
            edgeseg.load(make_bundle(), precision="int4")

    def test_no_artifact_of_the_runtime(self, make_bundle):
        with pytest.raises(BadInput, match="no artifact for runtime openvino, it has onnx-fp32"):
            edgeseg.load(make_bundle((Format.ONNX, FP32)), runtime="openvino")

    def test_no_artifact_of_the_precision(self, make_bundle):
        with pytest.raises(BadInput, match="no int8 artifact for runtime auto, it has onnx-fp32"):
            edgeseg.load(make_bundle((Format.ONNX, FP32)), precision="int8")

    @pytest.mark.parametrize("runtime", ["auto", "onnxruntime"])
    def test_absent_device(self, make_bundle, runtime):
        with pytest.raises(NoSuchDevice, match="CUDAExecutionProvider"):
            edgeseg.load(make_bundle(), runtime=runtime, device="cuda")

    def test_bad_threads(self, make_bundle):
        with pytest.raises(BadInput, match="threads is 0"):
            edgeseg.load(make_bundle((Format.ONNX, FP32)), threads=0)

    def test_missing_engine(self, make_bundle, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingDependency, match=r"pip install 'edgeseg\[openvino\]'"):
            edgeseg.load(make_bundle(), runtime="openvino")

    def test_a_model_of_another_size_than_the_manifest_says(self, make_bundle):
        from dataclasses import replace

        bundle = make_bundle((Format.ONNX, FP32))
        wrong = replace(bundle, manifest=replace(bundle.manifest, preprocess=replace(bundle.preprocess, height=32)))
        with pytest.raises(InferenceError, match=r"takes \(1, 3, 24, 32\), the bundle's preprocessing gives"):
            edgeseg.load(wrong)


def test_output_that_is_not_finite(make_bundle, frame):
    def poison(file: Path) -> None:
        if file.suffix == ".bin":
            file.write_bytes(np.full(file.stat().st_size // 4, np.nan, np.float32).tobytes())

    bundle = make_bundle((Format.OPENVINO, FP32), spoil=poison)
    with edgeseg.load(bundle) as segmenter, pytest.raises(InferenceError, match=r"openvino-fp32 .* not finite"):
        segmenter(frame)


def _spoil_onnx(file: Path) -> None:
    if file.suffix == ".onnx":
        file.write_bytes(b"\x08" + bytes(100))


class TestAuto:
    def test_takes_an_engine_and_never_the_fake(self, make_bundle, frame, mask):
        with edgeseg.load(make_bundle()) as segmenter:
            assert segmenter.runtime in plugins.ENGINES
            assert segmenter.skipped == {}
            assert (segmenter(frame).mask == mask).mean() > 0.97

    def test_skips_what_does_not_load_and_says_why(self, make_bundle, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        bundle = make_bundle(spoil=_spoil_onnx)
        for _ in range(2):  # the second time from memory
            with edgeseg.load(bundle) as segmenter:
                assert segmenter.runtime == "litert"
                assert "edgeseg[openvino]" in segmenter.skipped["openvino-int8 on openvino"]
                assert "cannot load onnx-fp32 on cpu" in segmenter.skipped["onnx-fp32 on onnxruntime"]
                assert len(segmenter.skipped) == 4

    def test_all_failing(self, make_bundle):
        bundle = make_bundle((Format.ONNX, FP32), (Format.ONNX, INT8), spoil=_spoil_onnx)
        with pytest.raises(InferenceError, match=r"can run here \(onnx-fp32 on .*; onnx-int8 on ") as caught:
            edgeseg.load(bundle)
        assert type(caught.value) is InferenceError

    def test_no_engine_at_all(self, make_bundle, monkeypatch):
        for module in ("onnxruntime", "openvino", "ai_edge_litert", "ai_edge_litert.interpreter"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InferenceError) as caught:
            edgeseg.load(make_bundle())
        assert all(f"pip install 'edgeseg[{extra}]'" in str(caught.value) for extra in ("onnx", "openvino", "tflite"))

    def test_imports_no_engine_without_an_artifact(self, make_bundle):
        path = make_bundle((Format.ONNX, FP32)).path
        code = (
            f"import edgeseg, sys; edgeseg.load({str(path)!r}).close(); "
            "assert not {'openvino', 'ai_edge_litert', 'torch', 'onnx', 'nncf'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class _Slow(FakeRuntime):
    """As slow as a test bears; remembers its sessions."""

    delay = 0.0
    opened: list[FakeSession] = []

    def _open(self, model: Model, device: str, threads: int | None, options: Options) -> FakeSession:
        session = super()._open(model, device, threads, options)
        infer, delay = session._infer, self.delay if model.format == "onnx" else 0.0
        session._infer = lambda feeds: (time.sleep(delay), infer(feeds))[1]
        self.opened.append(session)
        return session


class TestRace:
    @pytest.fixture(autouse=True)
    def runtimes(self, monkeypatch):
        monkeypatch.setattr(plugins, "ENGINES", ("one",))
        monkeypatch.setattr(plugins, "runtime", lambda name: _Slow())
        monkeypatch.setattr(_Slow, "delay", 0.004)
        monkeypatch.setattr(_Slow, "opened", [])

    def test_the_fastest_stays_and_the_others_are_closed(self, make_bundle):
        with edgeseg.load(make_bundle((Format.ONNX, FP32), (Format.TFLITE, FP32))) as segmenter:
            assert segmenter.artifact.format is Format.TFLITE
            assert [session._closed for session in _Slow.opened] == [True, False]
        assert _Slow.opened[1]._closed

    def test_is_run_once_per_process_and_question(self, make_bundle):
        bundle = make_bundle((Format.ONNX, FP32), (Format.TFLITE, FP32))
        edgeseg.load(bundle).close()
        edgeseg.load(bundle).close()
        assert len(_Slow.opened) == 3
        edgeseg.load(bundle, threads=2).close()
        assert len(_Slow.opened) == 5

    def test_who_is_hopeless_is_not_waited_for(self, make_bundle, monkeypatch):
        runs = []
        infer = FakeSession._infer
        monkeypatch.setattr(FakeSession, "_infer", lambda self, feeds: (runs.append(self), infer(self, feeds))[1])
        edgeseg.load(make_bundle((Format.ONNX, FP32), (Format.TFLITE, FP32))).close()
        slow, fast = (sum(run is session for run in runs) for session in _Slow.opened)
        assert slow == choice._WARM_UPS + 1
        assert fast == choice._WARM_UPS + choice._ROUNDS + 1  # and once when it was loaded

    def test_who_fails_while_running_drops_out(self, make_bundle, monkeypatch):
        def fail(self, feeds):
            raise InferenceError("out of memory")

        bundle = make_bundle((Format.ONNX, FP32), (Format.TFLITE, FP32))
        candidates, _ = choice._load(bundle, choice.candidates(bundle, "auto", None), {"threads": 1}, first=False)
        monkeypatch.setattr(candidates[1].session, "_infer", lambda feeds: fail(None, feeds))
        errors: dict = {}
        winner = choice._race(candidates, bundle, errors)
        assert winner is candidates[0]
        assert "out of memory" in str(errors["tflite-fp32 on one"])


class TestStrict:
    def test_a_sound_bundle_runs_as_asked_on_every_engine(self, bundle):
        for runtime in plugins.ENGINES:
            for precision in ("fp32", "int8"):
                edgeseg.load(bundle, runtime=runtime, precision=precision, strict=True).close()

    @pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
    def test_int8_that_runs_in_floats(self, bundle, precision, monkeypatch):
        record = Execution("CPU", precision, 0, 20, {"CPU": 20}, {precision: 20})
        monkeypatch.setattr(OpenVinoSession, "_inspect", lambda self: record)
        edgeseg.load(bundle, runtime="openvino", precision="int8").close()
        said = f"openvino-int8 on openvino cpu: an int8 artifact ran in {precision}"
        with pytest.raises(ExecutionMismatch, match=said):
            edgeseg.load(bundle, runtime="openvino", precision="int8", strict=True)

    def test_auto_passes_over_what_runs_otherwise_and_says_so(self, bundle, monkeypatch):
        record = Execution("CPU", "bf16", 0, 20, {"CPU": 20}, {"bf16": 20})
        monkeypatch.setattr(OpenVinoSession, "_inspect", lambda self: record)
        with edgeseg.load(bundle, precision="int8", strict=True) as segmenter:
            assert segmenter.runtime != "openvino"
            assert "ran in bf16" in segmenter.skipped["openvino-int8 on openvino"]

    def test_a_provider_that_was_silently_replaced(self, bundle, monkeypatch):
        """The engine says it has CUDA and starts it, and runs every layer on the CPU."""
        monkeypatch.setattr(OnnxRuntime, "_obstacle", lambda self, device: None)
        monkeypatch.setitem(onnx_providers.PROVIDERS, "cuda", "CPUExecutionProvider")
        with pytest.raises(ExecutionMismatch, match="layers ran on CPUExecutionProvider, asked for was cuda"):
            edgeseg.load(bundle, runtime="onnxruntime", precision="fp32", device="cuda", strict=True)

    def test_a_provider_that_is_there_but_broken(self, bundle, monkeypatch):
        monkeypatch.setattr(OnnxRuntime, "_obstacle", lambda self, device: None)
        with pytest.warns(UserWarning, match="not in available"), pytest.raises(NoSuchDevice, match="fell back to CPU"):
            edgeseg.load(bundle, runtime="onnxruntime", precision="fp32", device="cuda", strict=True)

    def test_a_provider_that_is_absent(self, bundle):
        with pytest.raises(NoSuchDevice):
            edgeseg.load(bundle, runtime="onnxruntime", device="cuda", strict=True)


class TestSelfTest:
    def test_passes_where_the_bundle_was_made(self, bundle):
        with edgeseg.load(bundle, self_test=True) as segmenter:
            assert segmenter(np.zeros((40, 40), np.uint8)).mask.shape == (40, 40)

    def test_an_engine_that_computes_something_else(self, bundle, monkeypatch):
        infer = OnnxSession._infer
        monkeypatch.setattr(OnnxSession, "_infer", lambda *a: {k: v + np.float32(2) for k, v in infer(*a).items()})
        with pytest.raises(SelfTestFailed, match=r"onnx-fp32 on onnxruntime cpu failed its self-test: logits: SQNR"):
            edgeseg.load(bundle, runtime="onnxruntime", precision="fp32", self_test=True)

    def test_a_bundle_without_golden_frames(self, make_bundle):
        with pytest.raises(SelfTestFailed, match="no golden frames"):
            edgeseg.load(make_bundle(), self_test=True)
