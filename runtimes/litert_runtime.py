"""LiteRT (TensorFlow Lite): ARM and x86 CPUs through XNNPACK."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np

from edgeseg.engine_options import Options
from edgeseg.errors import InferenceError, MissingDependency
from edgeseg.evidence import Execution, LayerTime
from edgeseg.runtimes.engine_errors import engine_errors
from edgeseg.runtimes.held_stderr import held_stderr
from edgeseg.runtimes.layer_error import Expose, GraphLayer
from edgeseg.runtimes.litert_layers import expose, graph_layers
from edgeseg.runtimes.runtime import EngineRuntime, EngineSession, Layer, tally
from edgeseg.types import Array, Format, Layout, Model, TensorSpec

_PACKAGES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "uint8": "int8"}
_DELEGATE = "DELEGATE"
_RUNNING = engine_errors("litert cannot run the model")


class LiteRtRuntime(EngineRuntime):
    """Runs .tflite through ai-edge-litert, or through tflite-runtime where only that is installed.

    tflite-runtime is the last resort of 32-bit ARM boards; its wheels need numpy below 2.
    """

    name: ClassVar[str] = "litert"
    formats: ClassVar[frozenset[Format]] = frozenset({Format.TFLITE})
    device_names: ClassVar[tuple[str, ...]] = ("cpu",)
    extra: ClassVar[str] = "tflite"

    def version(self) -> str:
        """The engine's version, with its name where it is not LiteRT. Raises MissingDependency where there is none."""
        package, _ = _engine()
        try:
            number = version(package)
        except PackageNotFoundError:
            number = "unknown"
        return number if package == "ai-edge-litert" else f"{number} ({package})"

    def _obstacle(self, device: str) -> str | None:
        package, _ = _engine()
        if package == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
            return f"tflite-runtime needs numpy below 2, found {np.__version__} (pip install 'numpy<2')"
        return None

    def _open(self, model: Model, device: str, threads: int | None, options: Options) -> LiteRtSession:
        return LiteRtSession(model, device, threads, options.get("delegate") != "none")


@dataclass(frozen=True, slots=True)
class _Port:
    """An input or output of the interpreter; `scale` is 0 where it is not quantized."""

    index: int
    spec: TensorSpec
    dtype: np.dtype[Any]
    scale: float
    zero: int

    def encode(self, array: Array) -> Array:
        if not self.scale:
            return array
        limits = np.iinfo(self.dtype)
        with np.errstate(invalid="ignore"):
            encoded: Array = np.clip(np.rint(array / self.scale) + self.zero, limits.min, limits.max).astype(self.dtype)
        return encoded

    def decode(self, array: Array) -> Array:
        if not self.scale:
            return array
        decoded: Array = (array.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)
        return decoded


class LiteRtSession(EngineSession):
    """One interpreter. Tensors are copied in and out: a view that is still alive would make the next call fail.

    Quantized inputs and outputs appear as float32 and are converted here.
    """

    def __init__(self, model: Model, device: str, threads: int | None, xnnpack: bool) -> None:
        self._source = (model, threads, xnnpack)
        with engine_errors(f"litert cannot load {model.name}"), held_stderr():
            self._interpreter = _interpreter(*self._source)
            self._in = [_port(details) for details in self._interpreter.get_input_details()]
            self._out = [_port(details) for details in self._interpreter.get_output_details()]
        super().__init__(tuple(port.spec for port in self._in), tuple(port.spec for port in self._out), device)

    def profile(self, feeds: Mapping[str, Array], runs: int) -> tuple[LayerTime, ...]:
        """Raise InferenceError: neither LiteRT's nor TensorFlow Lite's Python package has a clock for each layer."""
        raise InferenceError(
            "litert has no times per layer in Python: build TensorFlow Lite's benchmark_model and run it with "
            "--enable_op_profiling=true, or profile the same model on openvino or onnxruntime"
        )

    def graph_layers(self) -> tuple[GraphLayer, ...]:
        """The layers as the model says: see `edgeseg.runtimes.layer_error`."""
        self._check_open()
        return graph_layers(self._interpreter)

    def expose(self, tensors: Sequence[str]) -> Expose:
        """Load the model again, with all tensors kept: see `edgeseg.runtimes.layer_error`."""
        self._check_open()
        name = self._source[0].name
        with engine_errors(f"litert cannot load {name} with its tensors kept"), held_stderr():
            kept = _interpreter(*self._source, experimental_preserve_all_tensors=True)
        return expose(kept, self._in[0].index, self._in[0].encode, tensors)

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        interpreter = self._interpreter
        with _RUNNING:
            for port in self._in:
                interpreter.set_tensor(port.index, port.encode(feeds[port.spec.name]))
            interpreter.invoke()
            return {port.spec.name: port.decode(interpreter.get_tensor(port.index)) for port in self._out}

    def _inspect(self) -> Execution:
        with engine_errors("litert cannot describe the model"):
            return tally(_layers(self._interpreter._get_ops_details()), "CPU")

    def _release(self) -> None:
        del self._interpreter


def _engine() -> tuple[str, Any]:
    """The installed package and its interpreter module."""
    from importlib import import_module

    for package, module in _PACKAGES.items():
        try:
            return package, import_module(module)
        except ModuleNotFoundError as error:
            if error.name not in (module, module.split(".")[0]):
                raise
        except ImportError as error:
            # Wheels built for another C library or for numpy 1 fail here.
            raise InferenceError(f"{package} is installed but cannot be imported: {error}") from error
    raise MissingDependency("ai-edge-litert", "running .tflite artifacts", LiteRtRuntime.extra)


def _interpreter(model: Model, threads: int | None, xnnpack: bool, **options: Any) -> Any:
    module = _engine()[1]
    if not xnnpack:
        options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        # That it costs memory and time to keep all tensors is known.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = module.Interpreter(model_content=model.files[0], num_threads=threads, **options)
    interpreter.allocate_tensors()
    return interpreter


def _port(details: dict[str, Any]) -> _Port:
    dtype = np.dtype(details["dtype"])
    scale, zero = details["quantization"]
    shape = tuple(int(side) for side in details.get("shape_signature", details["shape"]))
    layout = Layout.NHWC if len(shape) == 4 else Layout.NCHW
    seen = "float32" if scale else dtype.name
    return _Port(details["index"], TensorSpec(details["name"], shape, seen, layout), dtype, float(scale), int(zero))


def _layers(nodes: list[dict[str, Any]]) -> Iterator[Layer]:
    delegated = _delegated(nodes)
    for node in nodes:
        if node["op_name"] != _DELEGATE:
            # The result tells the kernel: the first operand of a transposed convolution is its output's shape.
            dtype = np.dtype(node["result_types"][0]).name if len(node["result_types"]) else "float32"
            provider = "XNNPACK" if node["index"] in delegated else "CPU"
            yield Layer(node["op_name"], provider, _PRECISIONS.get(dtype, dtype))


def _delegated(nodes: list[dict[str, Any]]) -> set[int]:
    """Indices of the nodes inside a delegate's partition: whatever lies between its outputs and its inputs."""
    maker = {int(t): node for node in nodes if node["op_name"] != _DELEGATE for t in node["outputs"]}
    found: set[int] = set()
    for partition in (node for node in nodes if node["op_name"] == _DELEGATE):
        borders = {int(t) for t in partition["inputs"]}
        tensors = [int(t) for t in partition["outputs"]]
        while tensors:
            node = maker.get(tensors.pop())
            if node is not None and node["index"] not in found:
                found.add(node["index"])
                tensors += [int(t) for t in node["inputs"] if int(t) not in borders]
    return found
