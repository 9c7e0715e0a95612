"""What every engine shares: checks of files and feeds, a session's life, the proof of devices, the tally of layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np

from edgeseg import samples
from edgeseg.engine_options import Options, check_options
from edgeseg.errors import BadInput, InferenceError, NoSuchDevice
from edgeseg.evidence import Execution
from edgeseg.runtimes import forked
from edgeseg.runtimes.engine_errors import engine_errors
from edgeseg.types import Array, Format, Model, TensorSpec

PROBES = Path(samples.__file__).parent / "probe"
_PROBE_TOLERANCE = 0.01  # of the expected range: what fp16 on an accelerator may cost, and far below any real fault

# suffix, and the bytes that a file of this format has at an offset
_SIGNATURES = {
    Format.ONNX: (".onnx", 0, b"\x08"),
    Format.OPENVINO: (".xml", 0, b"<"),
    Format.TFLITE: (".tflite", 4, b"TFL3"),
}
# The key `location` of a TensorProto's external_data, as protobuf writes it.
_EXTERNAL_DATA = b"\x0a\x08location"
_CONVERSIONS = frozenset(
    (
        *("cast", "convert", "quantize", "quantizelinear", "dequantize", "dequantizelinear", "fakequantize"),
        *("reorder", "reorderinput", "reorderoutput", "transpose", "memcpyfromhost", "memcpytohost"),
        *("reshape", "flatten", "squeeze", "unsqueeze", "identity"),
        *("const", "constant", "input", "parameter", "output", "result"),
    )
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One executed node as an engine reports it. `precision` is fp32, fp16, bf16, int8 or another numpy name."""

    kind: str
    provider: str
    precision: str


@dataclass(frozen=True, slots=True)
class DeviceProof:
    """Whether a device ran the probe model right on this machine; `reason` says why not, in one line.

    `verified` is False for devices that edgeseg's own tests never ran on. `executed` is what ran the probe model, by
    the engine's own record.
    """

    name: str
    usable: bool
    reason: str = ""
    verified: bool = True
    executed: Execution | None = None


class EngineSession(ABC):
    """Base of the sessions: checks, life and laziness. A subclass gives `_infer`, `_inspect` and `_release`.

    It gives `_memory` too where the engine reads its inputs in place, and copies with `fill` what is not there already.

    Attributes:
        inputs, outputs: specs in the artifact's own layout.
        device: the one really used, never "auto".
    """

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], device: str) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.device = device
        self._dtypes = tuple(np.dtype(spec.dtype) for spec in inputs)
        self._closed = False
        self._execution: Execution | None = None
        self._own: Mapping[str, Array] | None = None
        forked.watch(self)

    def feeds(self) -> Mapping[str, Array]:
        """Memory to write the inputs into: `run` with this mapping copies nothing but what the engine itself does.

        Returns:
            Arrays of the names, shapes and dtypes of `inputs`, C-contiguous; empty where a shape is not fixed. Ask for
            them before each run: what they hold after one is anything. They outlive the session.

        Raises:
            InferenceError: the session is closed, or there is not so much memory.
        """
        self._check_open()
        if self._own is None:
            with engine_errors("no memory for the inputs"):
                self._own = MappingProxyType(self._memory() if _fixed(self.inputs) else {})
        return self._own

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once; the arrays returned may be overwritten by the next call.

        Raises:
            BadInput: a missing or unknown name, a wrong shape or dtype.
            InferenceError: the engine fails, or the session is closed.
        """
        self._check_open()
        if feeds is not self._own or not feeds:
            self._check_feeds(feeds)
        return self._infer(feeds)

    def execution(self) -> Execution:
        """What the engine really runs for this artifact, from its own records; found out on the first call."""
        if self._execution is None:
            self._check_open()
            self._execution = self._inspect()
        return self._execution

    def leave_behind(self) -> None:
        """Be closed without freeing anything, which might wait for the engine's threads: for a forked child."""
        self._closed = True

    def close(self) -> None:
        """Free the engine's memory; calling it twice is allowed."""
        if not self._closed:
            self._closed = True
            self._own = None
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _memory(self) -> dict[str, Array]:
        """The arrays of `feeds`, for inputs that all have a fixed shape."""
        return empty_arrays(self.inputs)

    @abstractmethod
    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]: ...

    @abstractmethod
    def _inspect(self) -> Execution: ...

    @abstractmethod
    def _release(self) -> None: ...

    def _check_open(self) -> None:
        if self._closed:
            where = "of the process that this one was forked from" if forked.is_inherited(self) else "closed"
            raise InferenceError(f"the session is {where}, load the artifact again")

    def _check_feeds(self, feeds: Mapping[str, Array]) -> None:
        for spec, dtype in zip(self.inputs, self._dtypes, strict=True):
            array = feeds.get(spec.name)
            if array is None:
                raise BadInput(f"input {spec.name!r} is missing, got {_names(feeds)}")
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                found = getattr(array, "dtype", type(array).__name__)
                raise BadInput(f"input {spec.name!r} is {found}, expected a numpy array of {spec.dtype}")
            if array.shape != spec.shape and not fits(array.shape, spec.shape):
                raise BadInput(f"input {spec.name!r} has shape {array.shape}, expected {spec.shape}")
        if len(feeds) != len(self.inputs):
            unknown = sorted(set(feeds) - {spec.name for spec in self.inputs})
            raise BadInput(f"unknown input {_names(unknown)}, expected {_names(s.name for s in self.inputs)}")


class EngineRuntime(ABC):
    """Base of the runtimes: which device, which file, and the proof. Stateless.

    Attributes:
        device_names: all devices the runtime knows, best first.
        unverified: those that edgeseg's own tests never ran on.
        extra: the edgeseg extra that installs the engine.
    """

    name: ClassVar[str]
    formats: ClassVar[frozenset[Format]]
    device_names: ClassVar[tuple[str, ...]]
    unverified: ClassVar[frozenset[str]] = frozenset()
    extra: ClassVar[str] = ""

    @abstractmethod
    def version(self) -> str:
        """The engine's version. Raises MissingDependency where the engine is not installed."""

    @abstractmethod
    def _obstacle(self, device: str) -> str | None:
        """Why a device cannot even be tried on this machine, None where it can."""

    @abstractmethod
    def _open(self, model: Model, device: str, threads: int | None, options: Options) -> EngineSession: ...

    def devices(self) -> tuple[str, ...]:
        """Devices proven usable here by running a small model, best first; proven once per process."""
        return tuple(proof.name for proof in self.proofs() if proof.usable)

    def proofs(self) -> tuple[DeviceProof, ...]:
        """The proof of every device the runtime knows. Raises MissingDependency where the engine is not installed."""
        self.version()
        return tuple(_prove(type(self), device) for device in self.device_names)

    def load(
        self,
        artifact: Path | Model,
        *,
        device: str = "auto",
        threads: int | None = None,
        options: Mapping[str, object] | None = None,
    ) -> EngineSession:
        """Load a model. The engine is given what is in memory; a path is read once, before.

        Args:
            artifact: a file of one of the runtime's formats, or the files of an artifact in memory.
            device: one of the runtime's devices, or "auto" for the best that works here.
            threads: number of CPU threads; None leaves it to the engine.
            options: what else to tell the engine: see `edgeseg.engine_options.OPTIONS`.

        Raises:
            BadInput: `threads` below 1, or an option that this engine does not know.
            NoSuchDevice: the device does not exist or does not work here.
            InferenceError: a missing file, or one that the engine does not accept.
            MissingDependency: the engine is not installed.
        """
        if threads is not None and threads < 1:
            raise BadInput(f"threads is {threads}, expected 1 or more, or None for the engine's default")
        told = check_options(self.name, options or {})
        self.version()
        model = read_file(artifact) if isinstance(artifact, Path) else artifact
        check_model(model, self)
        return self._open(model, self._device(device), threads, told)

    def _device(self, device: str) -> str:
        if device == "auto":
            return self._best_device()
        if device not in self.device_names:
            raise NoSuchDevice(f"{self.name} has no device {device!r}, expected auto or {_names(self.device_names)}")
        obstacle = self._obstacle(device)
        if obstacle:
            usable = ", ".join(self.devices()) or "nothing"
            raise NoSuchDevice(f"{self.name} cannot use {device} here: {obstacle}; usable here: {usable}")
        return device

    def _best_device(self) -> str:
        possible = [name for name in self.device_names if not self._obstacle(name)]
        # Nothing to choose between: if the only one does not work, loading says so better than a probe.
        usable = possible if len(possible) == 1 else self.devices()
        if not usable:
            reasons = "; ".join(f"{proof.name}: {proof.reason}" for proof in self.proofs())
            raise NoSuchDevice(f"{self.name} has no usable device here ({reasons})")
        return usable[0]

    def _probe(self, device: str) -> Execution:
        """Run the probe model. Raises InferenceError where the device does not give the expected output."""
        suffix, _, _ = _SIGNATURES[min(self.formats)]
        expected = np.load(PROBES / "expected.npy")
        with self._open(read_file(PROBES / f"probe{suffix}"), device, 1, {}) as session:
            spec = session.inputs[0]
            image = to_layout(np.load(PROBES / "input.npy"), spec)
            output = session.run({spec.name: image})[session.outputs[0].name]
            error = float(np.abs(output - to_layout(expected, session.outputs[0])).max())
            executed = session.execution()
        if not error <= _PROBE_TOLERANCE * float(np.ptp(expected)):
            raise InferenceError(f"{device} ran the probe model but its output is off by {error:.3g}")
        return executed


@cache
def _prove(kind: type[EngineRuntime], device: str) -> DeviceProof:
    runtime = kind()
    verified, executed = device not in kind.unverified, None
    try:
        reason = runtime._obstacle(device)
        if reason is None:
            executed = runtime._probe(device)
    except InferenceError as error:
        reason = str(error)
    return DeviceProof(device, reason is None, reason or "", verified, executed)


def empty_arrays(specs: Iterable[TensorSpec]) -> dict[str, Array]:
    """An array of zeros for each tensor, by name; their shapes have to be fixed."""
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs}


def fill(places: Mapping[str, Array], feeds: Mapping[str, Array]) -> None:
    """Copy inputs to where the engine reads them, but for those that are there already."""
    for name, place in places.items():
        if feeds[name] is not place:
            np.copyto(place, feeds[name])


def read_file(path: Path) -> Model:
    """A model file, and the weights beside an OpenVINO .xml, in memory.

    Raises InferenceError for a missing file, or one that is no model by its name.
    """
    formats = {suffix: format for format, (suffix, _, _) in _SIGNATURES.items()}
    if path.suffix not in formats:
        raise InferenceError(f"{path.name} is no model, expected a file named *{' or *'.join(formats)}")
    format = formats[path.suffix]
    paths = [path, path.with_suffix(".bin")] if format is Format.OPENVINO else [path]
    for file in paths:
        if not file.is_file():
            raise InferenceError(f"{file} does not exist or is not a file")
    return Model(path.name, format, tuple(file.read_bytes() for file in paths))


def check_model(model: Model, runtime: EngineRuntime) -> None:
    """Raise InferenceError for a model that a runtime may not be given.

    Engines are only handed what looks like their own format: some of them try every parser they have on anything else.
    Nothing may name files outside of it, which an engine would go and read.
    """
    _, offset, signature = _SIGNATURES[model.format]
    if model.format not in runtime.formats:
        expected = " or *".join(_SIGNATURES[format][0] for format in sorted(runtime.formats))
        raise InferenceError(f"{runtime.name} cannot load {model.name}, expected a file named *{expected}")
    count = 2 if model.format is Format.OPENVINO else 1
    if len(model.files) != count:
        raise InferenceError(f"{model.name} has {len(model.files)} files, expected {count} for {model.format}")
    content = model.files[0]
    if content[offset : offset + len(signature)] != signature:
        what = f"not an {model.format} model" if content else "empty"
        raise InferenceError(f"{model.name} is {what}: convert or copy it again")
    if model.format is Format.ONNX and _EXTERNAL_DATA in content:
        raise InferenceError(f"{model.name} keeps weights in files outside of it: save it as one file")


def tally(layers: Iterable[Layer], provider: str) -> Execution:
    """Count executed layers; conversions between precisions and layouts are not layers.

    Args:
        layers: all executed nodes.
        provider: named where the model has no layer at all.
    """
    real = [layer for layer in layers if layer.kind.lower() not in _CONVERSIONS]
    providers = Counter(layer.provider for layer in real)
    convolutions = [layer for layer in real if "conv" in layer.kind.lower()] or real
    int8 = sum(layer.precision == "int8" for layer in convolutions)
    floats = Counter(layer.precision for layer in convolutions if layer.precision != "int8")
    if convolutions and 2 * int8 >= len(convolutions):
        precision = "int8"
    else:
        precision = floats.most_common(1)[0][0] if floats else "fp32"
    return Execution(
        provider=providers.most_common(1)[0][0] if providers else provider,
        precision=precision,
        int8_layers=sum(layer.precision == "int8" for layer in real),
        layers=len(real),
        providers=dict(providers),
        precisions=dict(Counter(layer.precision for layer in real)),
    )


def to_layout(tensor: Array, spec: TensorSpec) -> Array:
    """A 4-D NCHW tensor in the layout of a spec, contiguous."""
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)) if spec.layout == "NHWC" else tensor


def _fixed(specs: Iterable[TensorSpec]) -> bool:
    return all(side >= 0 for spec in specs for side in spec.shape)


def fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a shape is the one expected, in which -1 stands for any size."""
    return len(shape) == len(expected) and all(e in (-1, s) for s, e in zip(shape, expected, strict=True))


def _names(names: Iterable[str]) -> str:
    return ", ".join(str(name) for name in names) or "nothing"
