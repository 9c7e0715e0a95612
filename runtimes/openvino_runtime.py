"""OpenVINO: Intel and ARM CPUs, Intel GPUs and NPUs. Reads its own IR only."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from edgeseg.engine_options import Options
from edgeseg.errors import InferenceError, MissingDependency
from edgeseg.evidence import Execution, LayerTime
from edgeseg.runtimes.engine_errors import engine_errors
from edgeseg.runtimes.layer_error import Expose, GraphLayer
from edgeseg.runtimes.openvino_layers import expose, graph_layers
from edgeseg.runtimes.openvino_profile import layer_times, wide_models
from edgeseg.runtimes.runtime import EngineRuntime, EngineSession, Layer, empty_arrays, fill, tally
from edgeseg.types import Array, Format, Model, TensorSpec

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8"}
_COUNTERS = {"PERF_COUNT": True}
_PROPERTIES = {
    "cache_dir": "CACHE_DIR",
    "inference_precision": "INFERENCE_PRECISION_HINT",
    "performance_hint": "PERFORMANCE_HINT",
    "streams": "NUM_STREAMS",
}
_NOISE = r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|Available frontends:[^\n]*"
_RUNNING = engine_errors("openvino cannot run the model", _NOISE)


class OpenVinoRuntime(EngineRuntime):
    """Runs .xml + .bin through openvino.

    A raw .onnx is refused: that parser can be crashed by a malformed file. `gpu` and `npu` follow the engine's
    documented options and were not verified on hardware; an NPU computes in fp16 whatever is asked.
    """

    name: ClassVar[str] = "openvino"
    formats: ClassVar[frozenset[Format]] = frozenset({Format.OPENVINO})
    device_names: ClassVar[tuple[str, ...]] = ("npu", "gpu", "cpu")
    unverified: ClassVar[frozenset[str]] = frozenset({"npu", "gpu"})
    extra: ClassVar[str] = "openvino"

    def version(self) -> str:
        """The engine's version. Raises MissingDependency where the engine is not installed."""
        return str(_engine().__version__).split("-")[0]

    def _obstacle(self, device: str) -> str | None:
        found = _core().available_devices
        if any(name.split(".")[0] == device.upper() for name in found):
            return None
        return f"OpenVINO finds {', '.join(found) or 'no device'} only; without its driver a device is not found"

    def _open(self, model: Model, device: str, threads: int | None, options: Options) -> OpenVinoSession:
        return OpenVinoSession(model, device, _config(device, threads, options))

    def wide_layers(self, int8: bool, threads: int | None, runs: int) -> tuple[LayerTime, ...]:
        """Times of the layers of wide convolutions on the CPU: see `edgeseg.runtimes.profile`."""
        layers: list[LayerTime] = []
        with engine_errors("openvino cannot run a wide convolution", _NOISE):
            for model, image in wide_models(_engine(), int8):
                compiled = _core().compile_model(model, "CPU", _config("cpu", threads, {}) | _COUNTERS)
                layers += layer_times(compiled, _PRECISIONS, [image], runs)
        return tuple(layers)


class OpenVinoSession(EngineSession):
    """A compiled model with one infer request on tensors that are set once: handing arrays over costs 60 us a call."""

    def __init__(self, model: Model, device: str, config: dict[str, Any]) -> None:
        self._source = (model, device, config)
        with engine_errors(f"openvino cannot load {model.name} on {device}", _NOISE):
            self._model = _compile(model, device, config)
            self._request = self._model.create_infer_request()
            super().__init__(_specs(self._model.inputs), _specs(self._model.outputs), device)
            self._in, self._out = empty_arrays(self.inputs), empty_arrays(self.outputs)
            for index, array in enumerate(self._in.values()):
                self._request.set_input_tensor(index, _engine().Tensor(array, shared_memory=True))
            for index, array in enumerate(self._out.values()):
                self._request.set_output_tensor(index, _engine().Tensor(array, shared_memory=True))

    def profile(self, feeds: Mapping[str, Array], runs: int) -> tuple[LayerTime, ...]:
        """Time every executed layer: see `edgeseg.runtimes.profile`. The model is compiled again, with counters."""
        self._check_open()
        self._check_feeds(feeds)
        model, device, config = self._source
        with engine_errors(f"openvino cannot profile {model.name}", _NOISE):
            compiled = _compile(model, device, config | _COUNTERS)
            return layer_times(compiled, _PRECISIONS, [feeds[spec.name] for spec in self.inputs], runs)

    def graph_layers(self) -> tuple[GraphLayer, ...]:
        """The layers as the model says: see `edgeseg.runtimes.layer_error`."""
        with engine_errors(f"openvino cannot read {self._source[0].name}", _NOISE):
            return graph_layers(_read(self._source[0]))

    def expose(self, tensors: Sequence[str]) -> Expose:
        """Compile the model again, with these results as outputs: see `edgeseg.runtimes.layer_error`."""
        self._check_open()
        model, device, config = self._source
        with engine_errors(f"openvino cannot load {model.name} with more outputs", _NOISE):
            return expose(_core(), _read(model), tensors, device.upper(), config)

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with _RUNNING:
            if feeds is not self._own:
                fill(self._in, feeds)
            self._request.infer(share_outputs=True)
        return self._out

    def _memory(self) -> dict[str, Array]:
        return self._in

    def _inspect(self) -> Execution:
        with engine_errors("openvino cannot describe the compiled model", _NOISE):
            provider = ",".join(self._model.get_property("EXECUTION_DEVICES"))
            return tally(_layers(self._model.get_runtime_model(), provider), provider)

    def _release(self) -> None:
        del self._request, self._model
        self._in, self._out = {}, {}


def _engine() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise MissingDependency("openvino", "running .xml artifacts", OpenVinoRuntime.extra) from error
    return openvino


@cache
def _started() -> tuple[Any, int]:
    return _engine().Core(), os.getpid()


def _core() -> Any:
    core, process = _started()
    if process != os.getpid():
        # Its threads are not there, and it would wait for them for ever.
        raise InferenceError(
            "openvino was started before this process was forked and does not work here: start processes by spawn"
        )
    return core


def _compile(model: Model, device: str, config: dict[str, Any]) -> Any:
    return _core().compile_model(_read(model), device.upper(), config)


def _read(model: Model) -> Any:
    xml, weights = model.files
    return _core().read_model(model=xml, weights=weights)


def _config(device: str, threads: int | None, options: Options) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device != "npu":
        # Without this, CPUs with bf16 and every GPU compute fp32 models in 16 bits.
        config |= {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    if device == "cpu" and threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if device == "cpu" and platform.machine() == "aarch64":
        # Its int8 convolutions for ARM give zeros, or what was in memory (docs/aarch64.md). So they run in fp32, and
        # `execution` says so.
        config["LP_TRANSFORMS_MODE"] = "NO"
    return config | {_PROPERTIES[name]: value for name, value in options.items()}


def _specs(ports: list[Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(port, index) for index, port in enumerate(ports))


def _spec(port: Any, index: int) -> TensorSpec:
    shape = port.get_partial_shape()
    if shape.is_dynamic:
        raise InferenceError(f"tensor {index} has the shape {shape}, expected a fixed one: convert the model again")
    # A model converted from a torch module without names has none.
    name = port.get_any_name() if port.get_names() else f"tensor_{index}"
    return TensorSpec(name, tuple(port.get_shape()), np.dtype(port.get_element_type().to_dtype()).name)


def _layers(model: Any, provider: str) -> Iterator[Layer]:
    for node in model.get_ordered_ops():
        info = node.get_rt_info()
        precision = info["runtimePrecision"].astype(str)
        yield Layer(info["layerType"].astype(str), provider, _PRECISIONS.get(precision, precision))
