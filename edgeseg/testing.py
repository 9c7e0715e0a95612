"""The conformance suite that every runtime must pass. It ships, so that a runtime of your own can be held to it.

    from edgeseg.testing import PROBE, RuntimeConformance

    class TestMyRuntime(RuntimeConformance):
        runtime_name = "mine"
        artifact = PROBE / "probe.onnx"

pytest collects the inherited tests; nothing here imports pytest.
"""

# ruff: noqa: D102 - the name of a test says what it demands

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgeseg import plugins, samples
from edgeseg.errors import BadInput, InferenceError, NoSuchDevice
from edgeseg.types import Array, Layout, Runtime, Session, TensorSpec

PROBE = Path(samples.__file__).parent / "probe"
"""A tiny network as probe.onnx, probe.xml + probe.bin and probe.tflite, with input.npy and expected.npy (both NCHW)."""

HALF_TOLERANCE = 0.01 * float(np.ptp(np.load(PROBE / "expected.npy")))
"""What 10 bits of mantissa may change of the probe's output: a percent of its range, and far below any real fault."""


class RuntimeConformance:
    """Subclass it, name a runtime and an artifact; override the rest where the defaults do not fit.

    Attributes:
        runtime_name: as in `edgeseg.plugins.RUNTIMES`.
        artifact: a model file with one input and one output.
        example: [1, C, H, W] float32, an input for it.
        expected: [1, K, h, w] float32, the output for `example`.
        tolerance: largest absolute difference from `expected`.
        device: that the tests run on; "auto" for the best there is.
        tolerances: of devices that compute in less than fp32: HALF_TOLERANCE is for fp16 and TF32.
        parses: False for a runtime that looks at no more than a file's beginning.
    """

    runtime_name: ClassVar[str]
    artifact: ClassVar[Path]
    example: ClassVar[Array] = np.load(PROBE / "input.npy")
    expected: ClassVar[Array] = np.load(PROBE / "expected.npy")
    tolerance: ClassVar[float] = 1e-5
    device: ClassVar[str] = "auto"
    tolerances: ClassVar[Mapping[str, float]] = {}
    parses: ClassVar[bool] = True

    def make_runtime(self) -> Runtime:
        """The runtime under test; override it for one that is not in the table."""
        return plugins.runtime(self.runtime_name)

    def test_says_who_it_is(self) -> None:
        runtime = self.make_runtime()
        assert runtime.name == self.runtime_name
        assert runtime.formats, "a runtime reads at least one format"
        assert runtime.version().strip(), "version() is empty"

    def test_devices_are_proven(self) -> None:
        devices = self.make_runtime().devices()
        assert devices, "no device works here"
        assert len(set(devices)) == len(devices)
        for device in devices:
            assert device == device.lower() != "auto"
            with self._load(device=device) as session:
                assert session.device == device
                self._assert_expected(self._run(session), device)

    def test_auto_is_a_real_device(self) -> None:
        with self._load(device="auto") as session:
            assert session.device in self.make_runtime().devices()

    def test_specs_are_those_of_the_artifact(self) -> None:
        with self._load() as session:
            assert isinstance(session.inputs, tuple)
            assert isinstance(session.outputs, tuple)
            (source,), (sink,) = session.inputs, session.outputs
            assert source.name
            assert sink.name
            assert source.dtype == sink.dtype == "float32"
            assert source.shape == _in_layout(self.example, source).shape
            assert sink.shape == _in_layout(self.expected, sink).shape
            output = session.run({source.name: _in_layout(self.example, source)})
            assert set(output) == {sink.name}
            assert output[sink.name].shape == sink.shape
            assert output[sink.name].dtype == np.float32

    def test_output_is_as_expected_every_time(self) -> None:
        with self._load() as session:
            for _ in range(3):
                self._assert_expected(self._run(session))

    def test_input_is_left_alone(self) -> None:
        with self._load() as session:
            image = _in_layout(self.example, session.inputs[0]).copy()
            image.setflags(write=False)
            session.run({session.inputs[0].name: image})
            assert np.array_equal(image, _in_layout(self.example, session.inputs[0]))

    def test_non_contiguous_input_gives_the_same(self) -> None:
        with self._load() as session:
            image = _in_layout(self.example, session.inputs[0])
            strided = np.repeat(image, 2, axis=-1)[..., ::2]
            assert not strided.flags.c_contiguous
            self._assert_expected(self._run(session, strided))
            reversed_view = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
            self._assert_expected(self._run(session, reversed_view))

    def test_nan_input_does_no_lasting_harm(self) -> None:
        with self._load() as session:
            poisoned = np.full(session.inputs[0].shape, np.nan, np.float32)
            output = self._run(session, poisoned)
            assert output.shape == session.outputs[0].shape
            self._assert_expected(self._run(session))

    def test_feeds_are_where_the_engine_reads(self) -> None:
        with self._load() as session:
            (spec,) = session.inputs
            (place,) = self._places(session)
            assert place.shape == spec.shape
            assert place.dtype == spec.dtype
            assert place.flags.c_contiguous
            assert place.flags.writeable
            for _ in range(3):
                np.copyto(self._places(session)[0], _in_layout(self.example, spec))
                self._assert_expected(session.run(session.feeds())[session.outputs[0].name])
                self._run(session, np.zeros(spec.shape, np.float32))  # which may be written over them

    def test_feeds_in_another_mapping_give_the_same(self) -> None:
        with self._load() as session:
            np.copyto(self._places(session)[0], _in_layout(self.example, session.inputs[0]))
            self._assert_expected(session.run(dict(session.feeds()))[session.outputs[0].name])
            np.copyto(self._places(session)[0], _in_layout(self.example, session.inputs[0])[:, ::-1])
            self._assert_expected(self._run(session, self._places(session)[0][:, ::-1]))

    def test_feeds_belong_to_one_session(self) -> None:
        with self._load() as first, self._load() as second:
            np.copyto(self._places(first)[0], _in_layout(self.example, first.inputs[0]))
            self._places(second)[0][:] = 0
            self._assert_expected(first.run(first.feeds())[first.outputs[0].name])

    def test_feeds_outlive_the_session(self) -> None:
        with self._load() as session:
            (place,) = self._places(session)
        place[:] = 1
        assert (place == 1).all()
        _assert_raises(InferenceError, session.feeds)

    def test_wrong_feeds_are_bad_input(self) -> None:
        with self._load() as session:
            name = session.inputs[0].name
            image = _in_layout(self.example, session.inputs[0])
            wrong: dict[str, dict[str, Array]] = {
                "missing": {},
                "misnamed": {f"not-{name}": image},
                "surplus": {name: image, "surplus": image},
                "float64": {name: image.astype(np.float64)},
                "uint8": {name: image.astype(np.uint8)},
                "rank": {name: image[0]},
                "size": {name: np.zeros((1, *(side + 1 for side in image.shape[1:])), np.float32)},
                "batch": {name: np.repeat(image, 2, axis=0)},
                "empty": {name: image[:0]},
                "list": {name: image.tolist()},
            }
            for kind, feeds in wrong.items():
                _assert_raises(BadInput, partial(session.run, feeds), kind)
            self._assert_expected(self._run(session))

    def test_close_twice(self) -> None:
        session = self._load()
        session.close()
        session.close()

    def test_run_after_close(self) -> None:
        session = self._load()
        session.close()
        feeds = {session.inputs[0].name: _in_layout(self.example, session.inputs[0])}
        _assert_raises(InferenceError, lambda: session.run(feeds))
        _assert_raises(InferenceError, session.execution)

    def test_output_outlives_the_session(self) -> None:
        with self._load() as session:
            output = self._run(session)
        self._assert_expected(output)

    def test_context_manager_closes_after_an_error(self) -> None:
        session = self._load()
        try:
            with session:
                raise KeyError("inside")
        except KeyError:
            pass
        _assert_raises(InferenceError, session.execution)

    def test_sessions_are_independent(self) -> None:
        with self._load() as first, self._load() as second:
            output = self._run(first)
            self._run(second, np.zeros(second.inputs[0].shape, np.float32))
            self._assert_expected(output)
            second.close()
            self._assert_expected(self._run(first))

    def test_threads_do_not_change_the_result(self) -> None:
        for threads in (1, 2, None):
            with self._load(threads=threads) as session:
                self._assert_expected(self._run(session))
        _assert_raises(BadInput, lambda: self._load(threads=0))

    def test_unknown_device(self) -> None:
        for device in ("abacus", "", "CPU "):
            _assert_raises(NoSuchDevice, partial(self._load, device=device), repr(device))

    def test_known_device_that_is_absent(self) -> None:
        runtime = self.make_runtime()
        usable = runtime.devices()
        for device in set(getattr(runtime, "device_names", usable)) - set(usable):
            error = _assert_raises(NoSuchDevice, partial(self._load, device=device), device)
            assert all(name in str(error) for name in usable), f"does not name what works: {error}"

    def test_unusable_files(self, tmp_path: Path) -> None:
        data = self.artifact.read_bytes()
        contents = {
            "empty": b"",
            "half": data[: len(data) // 2],
            "noise": np.random.default_rng(0).bytes(4096),
            "text": b"not a model\n" * 40,
        }
        for kind, content in contents.items():
            path = tmp_path / f"{kind}{self.artifact.suffix}"
            path.write_bytes(content)
            if self.parses or kind != "half":
                self._assert_refused(path)
        self._assert_refused(tmp_path / f"missing{self.artifact.suffix}")
        self._assert_refused(tmp_path)
        foreign = tmp_path / "model.h5"
        foreign.write_bytes(data)
        self._assert_refused(foreign)

    def test_execution_is_sane(self) -> None:
        with self._load() as session:
            execution = session.execution()
            assert execution.provider in execution.providers
            assert sum(execution.providers.values()) == execution.layers > 0
            assert 0 <= execution.int8_layers <= execution.layers
            assert execution.precision == "fp32"
            assert execution.int8_layers == 0
            assert session.execution() == execution
            self._assert_expected(self._run(session))

    def _load(self, *, device: str | None = None, threads: int | None = 1) -> Session:
        chosen = self.device if device is None else device
        return self.make_runtime().load(self.artifact, device=chosen, threads=threads)

    def _run(self, session: Session, image: Array | None = None) -> Array:
        """The output in the artifact's own layout."""
        spec = session.inputs[0]
        feed = _in_layout(self.example, spec) if image is None else image
        return session.run({spec.name: feed})[session.outputs[0].name]

    def _places(self, session: Session) -> list[Array]:
        """The arrays of its feeds, in the order of its inputs."""
        feeds = session.feeds()
        assert set(feeds) == {spec.name for spec in session.inputs}
        return [feeds[spec.name] for spec in session.inputs]

    def _assert_expected(self, output: Array, device: str = "") -> None:
        expected, tolerance = self.expected, self.tolerances.get(device or self.device, self.tolerance)
        if output.shape != expected.shape:
            expected = expected.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance)

    def _assert_refused(self, path: Path) -> None:
        error = _assert_raises(InferenceError, lambda: self.make_runtime().load(path), path.name)
        assert "\n" not in str(error), "an error is one line"
        assert len(str(error)) < 500, "an error is one readable line"


def _in_layout(tensor: Array, spec: TensorSpec) -> Array:
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)) if spec.layout is Layout.NHWC else tensor


def _assert_raises(kind: type[Exception], call: Callable[[], object], what: str = "") -> Exception:
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what or 'the call'} raised {error!r} instead of {kind.__name__}") from error
    raise AssertionError(f"{what or 'the call'} did not raise {kind.__name__}")
