"""How far every layer of a converted artifact is from the same layer of the fp32 artifact of its format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from edgeseg.errors import InferenceError
from edgeseg.runtimes.engine_errors import engine_errors
from edgeseg.types import Array, Precision, Session

FULL_SCALE_DB = 49.9
"""SQNR of a sine over the whole range of 8 bits, 6.02 * 8 + 1.76: what rounding alone leaves at best."""

Expose = Callable[[Array], Mapping[str, Array]]
"""The network's input to tensors by name, in the model's own types; quantized ones as real numbers."""

_MOVES = frozenset(("reshape", "transpose", "squeeze", "unsqueeze", "flatten", "identity", "pad", "convert", "cast"))
_PRECISIONS = {"float16": Precision.FP16, "float32": Precision.FP32}


@dataclass(frozen=True, slots=True)
class GraphLayer:
    """One layer of a model as it was written, before an engine fuses it.

    Attributes:
        name: of the operation; engines keep it, or begin theirs with it.
        kind: the format's name of the operation.
        tensor: what the layer gives, by the name that the artifacts of a format share.
        sources: tensors of the layers it takes from; empty where that is the model's input.
        quantized: all it takes lies on an 8-bit grid.
        names: of all operations that were folded into it.
    """

    name: str
    kind: str
    tensor: str
    sources: tuple[str, ...]
    quantized: bool
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerError:
    """What one layer loses against fp32.

    Attributes:
        name, kind: as the model says.
        precision: `int8` where all that the layer takes lies on an 8-bit grid, else the type it gives.
        sqnr_db: of its result, with all errors made before it, over all frames; SQNR_LIMIT_DB at most.
        drop_db: the lowest SQNR of what it takes, minus its own, both at most FULL_SCALE_DB: what is lost here.
        names: of all operations that were folded into it, to find its time by.
    """

    name: str
    kind: str
    precision: str
    sqnr_db: float
    drop_db: float
    names: tuple[str, ...] = ()


@runtime_checkable
class Tracing(Protocol):
    """A session whose engine can give out what lies between the layers."""

    def graph_layers(self) -> tuple[GraphLayer, ...]:
        """The layers in an order in which they can be executed. Raises InferenceError as `run`."""
        ...

    def expose(self, tensors: Sequence[str]) -> Expose:
        """Load the model once more, with these tensors as outputs; unknown ones are left out.

        An engine cannot fuse across an output: what it gives is the arithmetic of the graph, layer by layer.
        Raises InferenceError where the engine fails.
        """
        ...


def layer_errors(exact: Session, session: Session, images: Iterable[Array]) -> tuple[LayerError, ...]:
    """Run two artifacts of one format and compare them layer by layer.

    Args:
        exact: the fp32 artifact.
        session: what was made of it.
        images: inputs of the network in the sessions' layout, at least one.

    Returns:
        The layers of `session` that also stand in `exact`, in order; those that only move data are left out.

    Raises:
        InferenceError: an engine that cannot give out tensors, or artifacts without a tensor in common.
    """
    for one in (exact, session):
        if not isinstance(one, Tracing):
            raise InferenceError(
                f"{type(one).__name__} has no results per layer: choose litert, onnxruntime or openvino"
            )
    assert isinstance(exact, Tracing)
    assert isinstance(session, Tracing)
    layers = session.graph_layers()
    tensors = [layer.tensor for layer in layers if layer.kind.replace("_", "").lower() not in _MOVES]
    energies = _compare(exact, session, tensors, images)
    if not energies:
        raise InferenceError("the artifact and the fp32 one have no tensor in common: convert both again, together")
    return tuple(_errors(layers, energies))


@dataclass(slots=True)
class _Energy:
    """Of one tensor over all frames."""

    dtype: str = ""
    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: Array, own: Array) -> None:
        expected = exact.astype(np.float64)
        self.dtype = own.dtype.name
        self.signal += float(np.sum(expected**2))
        self.noise += float(np.sum((expected - own) ** 2))

    @property
    def sqnr_db(self) -> float:
        from edgeseg.metrics import limited_db  # with OpenCV, which no engine needs

        # A tensor that is not a number anywhere carries nothing of its signal.
        return limited_db(self.signal, self.noise)


def _compare(exact: Tracing, session: Tracing, tensors: Sequence[str], images: Iterable[Array]) -> dict[str, _Energy]:
    expected_of, own_of = exact.expose(tensors), session.expose(tensors)
    energies: dict[str, _Energy] = {}
    for image in images:
        with engine_errors("the engine cannot run the model with more outputs"):
            expected, own = expected_of(image), own_of(image)
        for tensor in tensors:
            a, b = expected.get(tensor), own.get(tensor)
            if a is not None and b is not None and a.shape == b.shape and np.issubdtype(b.dtype, np.floating):
                energies.setdefault(tensor, _Energy()).add(a, b)
    return energies


def _errors(layers: Sequence[GraphLayer], energies: Mapping[str, _Energy]) -> Iterator[LayerError]:
    reached: dict[str, float] = {}  # SQNR at each tensor; of one that was not compared, that of what it was made of
    for layer in layers:
        before = min((reached.get(source, FULL_SCALE_DB) for source in layer.sources), default=FULL_SCALE_DB)
        energy = energies.get(layer.tensor)
        if energy is None:
            reached[layer.tensor] = before
            continue
        after = reached[layer.tensor] = min(FULL_SCALE_DB, energy.sqnr_db)
        precision = Precision.INT8 if layer.quantized else _PRECISIONS.get(energy.dtype, energy.dtype)
        yield LayerError(layer.name, layer.kind, str(precision), energy.sqnr_db, before - after, layer.names)
