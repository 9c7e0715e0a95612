"""The conformance suite fails where it should: each fault is in a runtime that is right otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edgeseg.engine_options import Options
from edgeseg.evidence import Execution
from edgeseg.runtimes.onnx_runtime import OnnxRuntime, OnnxSession
from edgeseg.runtimes.runtime import EngineSession, read_file
from edgeseg.testing import PROBE, RuntimeConformance
from edgeseg.types import Array, Model


class Off(OnnxSession):
    """Wrong numbers."""

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return {name: output + 1e-3 for name, output in super()._infer(feeds).items()}


class Careless(OnnxSession):
    """Looks at no feed."""

    def _check_feeds(self, feeds: Mapping[str, Array]) -> None:
        """Whatever comes."""


class Immortal(OnnxSession):
    """Cannot be closed."""

    def close(self) -> None:
        """Nothing happens."""


class Forgetful(OnnxSession):
    """Cannot be closed twice."""

    def close(self) -> None:
        del self._session
        self._closed = True


class Shared(OnnxSession):
    """All sessions write into one buffer."""

    buffer = np.zeros((1, 2, 24, 32), np.float32)

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        ((name, output),) = super()._infer(feeds).items()
        np.copyto(self.buffer, output)
        return {name: self.buffer}


class Scribbler(OnnxSession):
    """Writes into its input."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        for array in feeds.values():
            if isinstance(array, np.ndarray):
                array += 0
        return super().run(feeds)


class Poisoned(OnnxSession):
    """Never recovers from a NaN."""

    nan = False

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        self.nan = self.nan or any(np.isnan(array).any() for array in feeds.values())
        return {name: output * (np.nan if self.nan else 1) for name, output in super()._infer(feeds).items()}


class MemoryReader(OnnxSession):
    """Reads strided memory as if it were contiguous."""

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        def flat(array: Array) -> Array:
            base = array if array.flags.c_contiguous or array.base is None else array.base
            return np.resize(base, array.shape).astype(np.float32)

        return super()._infer({name: flat(array) for name, array in feeds.items()})


class Stale(OnnxSession):
    """Gives out memory that nothing reads."""

    def feeds(self) -> Mapping[str, Array]:
        self._check_open()
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}


class Pooled(OnnxSession):
    """All sessions give out the same memory."""

    pool = {"image": np.zeros((1, 3, 24, 32), np.float32)}

    def _memory(self) -> dict[str, Array]:
        return self.pool

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return super()._infer(dict(feeds))


class Trusting(OnnxSession):
    """Takes what is in its own memory for what it was given."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        own = self.feeds()
        shared = any(isinstance(a, np.ndarray) and np.shares_memory(a, own["image"]) for a in feeds.values())
        return super().run(own if shared else feeds)


class Eager(OnnxSession):
    """Gives its memory away after it was closed."""

    def feeds(self) -> Mapping[str, Array]:
        return self._bound.inputs if self._bound else {}


class Liar(OnnxSession):
    """Its execution does not add up."""

    def _inspect(self) -> Execution:
        return Execution("GPU", "fp32", 0, 5, {"CPU": 3})


def suite(session: type[EngineSession], **changes: object) -> RuntimeConformance:
    class Faulty(OnnxRuntime):
        def _open(self, artifact: Path, device: str, threads: int | None, options: Options) -> EngineSession:
            return session(artifact, device, threads, options)

    class Suite(RuntimeConformance):
        runtime_name = "onnxruntime"
        artifact = PROBE / "probe.onnx"

        def make_runtime(self):
            runtime = Faulty()
            for name, value in changes.items():
                setattr(runtime, name, value)
            return runtime

    return Suite()


@pytest.mark.parametrize(
    ("session", "test"),
    [
        (Off, "test_output_is_as_expected_every_time"),
        (Off, "test_devices_are_proven"),
        (Careless, "test_wrong_feeds_are_bad_input"),
        (Immortal, "test_run_after_close"),
        (Immortal, "test_context_manager_closes_after_an_error"),
        (Forgetful, "test_close_twice"),
        (Shared, "test_sessions_are_independent"),
        (Scribbler, "test_input_is_left_alone"),
        (Poisoned, "test_nan_input_does_no_lasting_harm"),
        (MemoryReader, "test_non_contiguous_input_gives_the_same"),
        (Stale, "test_feeds_are_where_the_engine_reads"),
        (Trusting, "test_feeds_in_another_mapping_give_the_same"),
        (Pooled, "test_feeds_belong_to_one_session"),
        (Eager, "test_feeds_outlive_the_session"),
        (Liar, "test_execution_is_sane"),
    ],
)
def test_a_fault_is_found(session, test):
    getattr(suite(OnnxSession), test)()
    with pytest.raises((AssertionError, ValueError, AttributeError)):
        getattr(suite(session), test)()


def test_wrong_names_and_devices_are_found():
    with pytest.raises(AssertionError):
        suite(OnnxSession, version=lambda: " ").test_says_who_it_is()
    with pytest.raises(AssertionError, match="no device works here"):
        suite(OnnxSession, devices=lambda: ()).test_devices_are_proven()
    with pytest.raises(AssertionError):
        suite(OnnxSession, devices=lambda: ("auto",)).test_devices_are_proven()


def test_a_device_that_is_taken_for_another_is_found():
    lenient = suite(OnnxSession, _device=lambda device: "cpu")
    with pytest.raises(AssertionError, match="'abacus' did not raise NoSuchDevice"):
        lenient.test_unknown_device()
    with pytest.raises(AssertionError, match="did not raise NoSuchDevice"):
        lenient.test_known_device_that_is_absent()


def test_unusable_files_that_load_are_found(tmp_path):
    class Generous(OnnxSession):
        def __init__(self, model: Model, device: str, threads: int | None, options: Options) -> None:
            super().__init__(read_file(PROBE / "probe.onnx"), device, threads, options)

    suite(OnnxSession).test_unusable_files(tmp_path)
    with pytest.raises(AssertionError, match=r"half.onnx did not raise InferenceError"):
        suite(Generous).test_unusable_files(tmp_path)


def test_nothing_in_it_imports_pytest():
    code = "import edgeseg.testing, sys; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
