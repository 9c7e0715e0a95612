"""The layers of an OpenVINO model as it was written, and their results.

A FakeQuantize belongs to what it rounds: its result is that layer's. An addition of constants and an activation belong
to the layer before them, as the engine fuses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeseg.runtimes.layer_error import Expose, GraphLayer
from edgeseg.types import Array

_GRID = "FakeQuantize"
_JOINS = frozenset(
    ("Add", "Relu", "PRelu", "Clamp", "Elu", "Gelu", "Sigmoid", "Tanh", "Swish", "HSwish", "HSigmoid", "Mish", "Selu")
)
_KEEPS_GRID = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Concat", "DepthToSpace", "Pad"))


def graph_layers(model: Any) -> tuple[GraphLayer, ...]:
    """The layers of a model that was read, in order."""
    return tuple(_Reader(model).layers())


def expose(core: Any, model: Any, tensors: Sequence[str], device: str, config: Mapping[str, Any]) -> Expose:
    """Compile a model that was read, with the results of these operations as outputs.

    Args:
        core: openvino.Core.
        model: changed by this.
        tensors: names of operations; of those that are rounded, the rounded result is given.
        device, config: as for `compile_model`.
    """
    operations = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    found = {name: _rounded(operations[name].output(0)) for name in tensors if name in operations}
    model.add_outputs(list(found.values()))
    # What is an output already is not added again.
    index = {_source(result.input(0)): i for i, result in enumerate(model.get_results())}
    given = {name: port.get_node().get_friendly_name() for name, port in found.items()}
    request = core.compile_model(model, device, dict(config)).create_infer_request()

    def run(image: Array) -> Mapping[str, Array]:
        request.infer([image])
        return {name: request.get_output_tensor(index[of]).data for name, of in given.items()}

    return run


class _Reader:
    """Walks the operations in order and knows which layer made what."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: list[GraphLayer] = []
        self._layer_of: dict[str, int | None] = {}  # by operation; None is the model's input
        self._on_grid: set[str] = set()

    def layers(self) -> Sequence[GraphLayer]:
        for op in self._model.get_ordered_ops():
            kind, name = op.get_type_name(), op.get_friendly_name()
            # What hangs on constants alone is weights.
            before = [source for source in map(_source, op.inputs()) if source in self._layer_of]
            if kind == "Parameter":
                self._layer_of[name] = None
            elif before and kind == _GRID:
                self._round(name, before[0])
            elif before and kind != "Result":
                self._take(op, kind, name, before)
        return self._layers

    def _round(self, name: str, before: str) -> None:
        index = self._layer_of[name] = self._layer_of[before]
        self._on_grid.add(name)
        if index is not None:
            layer = self._layers[index]
            self._layers[index] = replace(layer, names=(*layer.names, name))

    def _take(self, op: Any, kind: str, name: str, before: list[str]) -> None:
        index = self._joined(op, kind, before)
        if index is not None:
            layer = self._layers[index]
            self._layers[index] = replace(layer, tensor=name, names=(*layer.names, name))
            self._layer_of[name] = index
            return
        grid = all(source in self._on_grid for source in before)
        if grid and kind in _KEEPS_GRID:
            self._on_grid.add(name)
        self._layer_of[name] = len(self._layers)
        self._layers.append(GraphLayer(name, kind, name, tuple(self._tensors(before)), grid, (name,)))

    def _joined(self, op: Any, kind: str, before: list[str]) -> int | None:
        """The layer that an operation belongs to: one that gives to nothing else and was not rounded yet."""
        index = self._layer_of[before[0]]
        if kind not in _JOINS or len(before) > 1 or index is None or before[0] in self._on_grid:
            return None
        result = next(port for port in op.inputs() if _source(port) == before[0]).get_source_output()
        return index if len(result.get_target_inputs()) == 1 else None

    def _tensors(self, before: Sequence[str]) -> Iterator[str]:
        for source in before:
            index = self._layer_of[source]
            if index is not None:
                yield self._layers[index].tensor


def _source(port: Any) -> str:
    return str(port.get_source_output().get_node().get_friendly_name())


def _rounded(port: Any) -> Any:
    """What a FakeQuantize makes of a result, where there is one."""
    for target in port.get_target_inputs():
        if target.get_node().get_type_name() == _GRID and target.get_index() == 0:
            return target.get_node().output(0)
    return port
