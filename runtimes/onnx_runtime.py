"""ONNX Runtime: CPU everywhere, CUDA and TensorRT where the GPU build of the engine is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from edgeseg.engine_options import Options
from edgeseg.errors import MissingDependency
from edgeseg.evidence import Execution, LayerTime
from edgeseg.runtimes.engine_errors import engine_errors
from edgeseg.runtimes.layer_error import Expose, GraphLayer
from edgeseg.runtimes.onnx_layers import expose, graph_layers
from edgeseg.runtimes.onnx_profile import Event, layer_times, node_events
from edgeseg.runtimes.onnx_providers import NOISE, PROVIDERS, provider_list, start, tensorrt_precision
from edgeseg.runtimes.onnx_wide import WIDE, wide_model
from edgeseg.runtimes.runtime import EngineRuntime, EngineSession, Layer, empty_arrays, fill, tally
from edgeseg.types import Array, Format, Model, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}
_RUNNING = engine_errors("onnxruntime cannot run the model", NOISE)


class OnnxRuntime(EngineRuntime):
    """Runs .onnx through onnxruntime.

    `cuda` and `tensorrt` follow the engine's documented options and were not verified on hardware: docs/gpu.md.
    TensorRT builds its engines on the first load (minutes) and keeps them under `$XDG_CACHE_HOME/edgeseg/tensorrt`.
    """

    name: ClassVar[str] = "onnxruntime"
    formats: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    device_names: ClassVar[tuple[str, ...]] = ("tensorrt", "cuda", "cpu")
    unverified: ClassVar[frozenset[str]] = frozenset({"tensorrt", "cuda"})
    extra: ClassVar[str] = "onnx"

    def version(self) -> str:
        """The engine's version. Raises MissingDependency where the engine is not installed."""
        return str(_engine().__version__)

    def _obstacle(self, device: str) -> str | None:
        if PROVIDERS[device] in _engine().get_available_providers():
            return None
        return f"this build of onnxruntime has no {PROVIDERS[device]} (pip install onnxruntime-gpu)"

    def _open(self, model: Model, device: str, threads: int | None, options: Options) -> OnnxSession:
        return OnnxSession(model, device, threads, options)

    def wide_layers(self, int8: bool, threads: int | None, runs: int) -> tuple[LayerTime, ...]:
        """Times of the layers of wide convolutions on the CPU: see `edgeseg.runtimes.profile`."""
        layers: list[LayerTime] = []
        with engine_errors("onnxruntime cannot run a wide convolution", NOISE):
            for channels, side in WIDE:
                model = wide_model(channels, side, int8)
                image = np.ones((1, channels, side, side), np.uint8 if int8 else np.float32)
                create = partial(_engine().InferenceSession, model, providers=[PROVIDERS["cpu"]])
                layers += layer_times(lambda: _session_options(threads), create, _event_precision, {"x": image}, runs)
        return tuple(layers)


class OnnxSession(EngineSession):
    """An onnxruntime.InferenceSession, on memory that is bound once where all shapes are known and the CPU runs it.

    Other providers would copy a bound input once, when it is bound, and a size that is not known cannot be bound.
    """

    def __init__(self, model: Model, device: str, threads: int | None, options: Options) -> None:
        self._model, self._setup = model, _Setup(device, threads, options)
        with engine_errors(f"onnxruntime cannot load {model.name} on {device}", NOISE):
            self._session = _create(model, self._setup, _session_options(threads))
            inputs = tuple(_spec(port) for port in self._session.get_inputs())
            outputs = tuple(_spec(port) for port in self._session.get_outputs())
            self._bound = _bind(self._session, inputs, outputs) if device == "cpu" else None
        super().__init__(inputs, outputs, device)
        self._names = [spec.name for spec in outputs]

    def _memory(self) -> dict[str, Array]:
        return self._bound.inputs if self._bound else super()._memory()

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with _RUNNING:
            if self._bound:
                if feeds is not self._own:
                    fill(self._bound.inputs, feeds)
                self._session.run_with_iobinding(self._bound.binding)
                return self._bound.outputs
            arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
            return dict(zip(self._names, self._session.run(self._names, arrays), strict=True))

    def profile(self, feeds: Mapping[str, Array], runs: int) -> tuple[LayerTime, ...]:
        """Time every executed layer: see `edgeseg.runtimes.profile`. The model is loaded again, twice."""
        self._check_open()
        self._check_feeds(feeds)
        threads = self._setup.threads
        with engine_errors(f"onnxruntime cannot profile {self._model.name}", NOISE):
            create = partial(_create, self._model, self._setup)
            return layer_times(lambda: _session_options(threads), create, self._precision, feeds, runs)

    def graph_layers(self) -> tuple[GraphLayer, ...]:
        """The layers as the model says: see `edgeseg.runtimes.layer_error`."""
        return graph_layers(self._model.files[0])

    def expose(self, tensors: Sequence[str]) -> Expose:
        """Load the model again, with these tensors as outputs: see `edgeseg.runtimes.layer_error`."""
        self._check_open()
        model, setup = self._model, self._setup

        def create(content: bytes) -> Any:
            return _create(replace(model, files=(content,)), setup, _session_options(setup.threads))

        with engine_errors(f"onnxruntime cannot load {model.name} with more outputs", NOISE):
            return expose(create, model.files[0], tensors)

    def _inspect(self) -> Execution:
        """Profile one run of a second, short-lived session: only a profile names what was really executed."""
        setup, zeros = self._setup, {spec.name: _zeros(spec) for spec in self.inputs}
        with engine_errors(f"onnxruntime cannot profile {self._model.name}", NOISE):
            events = node_events(_session_options(setup.threads), partial(_create, self._model, setup), zeros, 1)
        return tally(map(self._layer, events), PROVIDERS[setup.device])

    def _layer(self, event: Event) -> Layer:
        arguments = event["args"]
        return Layer(arguments["op_name"], arguments["provider"], self._precision(event))

    def _precision(self, event: Event) -> str:
        if event["args"]["provider"] == PROVIDERS["tensorrt"]:
            return tensorrt_precision(self._model, self._setup.options)
        return _event_precision(event)

    def _release(self) -> None:
        del self._session
        self._bound = None


@dataclass(frozen=True, slots=True)
class _Setup:
    """How a session is made."""

    device: str
    threads: int | None
    options: Options


@dataclass(frozen=True, slots=True)
class _Bound:
    """Memory that the engine reads its inputs from and writes its outputs to."""

    binding: Any
    inputs: dict[str, Array]
    outputs: dict[str, Array]


def _engine() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingDependency("onnxruntime", "running .onnx artifacts", OnnxRuntime.extra) from error
    return onnxruntime


def _session_options(threads: int | None) -> Any:
    options = _engine().SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters arrives as an exception
    # A spinning pool burns a core between two frames and slows whatever runs next in the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _create(model: Model, setup: _Setup, session_options: Any, **rest: Any) -> Any:
    engine = _engine()
    providers = provider_list(model, setup.device, setup.options, engine.__version__)
    create = partial(engine.InferenceSession, model.files[0], session_options, providers=providers, **rest)
    return create() if setup.device == "cpu" else start(engine, create, setup.device, model.name)


def _bind(session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> _Bound | None:
    """None where a tensor is of unknown size, or is none of numbers."""
    if any(s.dtype not in _DTYPES.values() or min(s.shape, default=1) < 1 for s in (*inputs, *outputs)):
        return None
    bound = _Bound(session.io_binding(), empty_arrays(inputs), empty_arrays(outputs))
    for name, array in bound.inputs.items():
        bound.binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in bound.outputs.items():
        bound.binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return bound


def _spec(port: Any) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) else -1 for side in port.shape)
    return TensorSpec(port.name, shape, _DTYPES.get(port.type, port.type))


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros([max(side, 1) for side in spec.shape], spec.dtype)


def _event_precision(event: Event) -> str:
    kind, inputs = event["args"]["op_name"], event["args"].get("input_type_shape", [])
    first = next(iter(inputs[0]), "float") if inputs else "float"
    # QLinearConcat and its like begin with a scale, so their first input does not tell.
    if kind.startswith("QLinear") or "Integer" in kind:
        return "int8"
    return _PRECISIONS.get(first, first)
