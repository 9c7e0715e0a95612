"""The layers of an ONNX model as it was written, and their results.

QuantizeLinear and DequantizeLinear belong to what they round: what comes out of them is that layer's result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeseg.runtimes.layer_error import Expose, GraphLayer
from edgeseg.runtimes.onnx_graph import Graph, Node, read_graph, with_outputs
from edgeseg.types import Array

_ROUND, _BACK = "QuantizeLinear", "DequantizeLinear"
_JOINS = frozenset(("Relu", "PRelu", "LeakyRelu", "Clip", "Elu", "Gelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"))


def graph_layers(model: bytes) -> tuple[GraphLayer, ...]:
    """The layers of a model's file, in order."""
    return tuple(_Reader(read_graph(model)).layers())


def expose(create: Callable[[bytes], Any], model: bytes, tensors: Sequence[str]) -> Expose:
    """Load a model with these tensors as outputs.

    Args:
        create: makes an engine's session of a model's file.
        model: the file.
        tensors: by name; of those that are rounded, the rounded one is given.
    """
    graph = read_graph(model)
    there = {name for node in graph.nodes for name in node.outputs}
    rounded = _rounded(graph)
    found = {name: rounded.get(name, name) for name in tensors if name in there}
    more = dict.fromkeys(name for name in found.values() if name not in graph.outputs)
    session = create(with_outputs(model, more))
    asked = list(dict.fromkeys(found.values()))

    def run(image: Array) -> Mapping[str, Array]:
        if not asked:  # which would mean all outputs
            return {}
        results = dict(zip(asked, session.run(asked, {graph.inputs[0]: image}), strict=True))
        return {name: results[given] for name, given in found.items()}

    return run


def _rounded(graph: Graph) -> dict[str, str]:
    """What each tensor is once it was rounded: the tensor that comes back out of its pair of Q and DQ."""
    back = {node.inputs[0]: node.outputs[0] for node in graph.nodes if node.kind == _BACK}
    pairs = [(n.inputs[0], back.get(n.outputs[0])) for n in graph.nodes if n.kind == _ROUND]
    rounded: dict[str, str] = {}
    for tensor, after in pairs:
        if after:
            rounded.setdefault(tensor, after)
    return rounded


class _Reader:
    """Walks the nodes in order and knows which layer made what."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._layers: list[GraphLayer] = []
        self._layer_of: dict[str, int | None] = dict.fromkeys(graph.inputs)  # by tensor; None is the model's input
        self._on_grid: set[str] = set()

    def layers(self) -> Sequence[GraphLayer]:
        takers: dict[str, int] = {}
        for name in (name for node in self._graph.nodes for name in node.inputs):
            takers[name] = takers.get(name, 0) + 1
        for node in self._graph.nodes:
            # What hangs on weights alone is weights.
            before = [name for name in node.inputs if name in self._layer_of]
            if before and node.kind in (_ROUND, _BACK):
                self._round(node, before[0])
            elif before:
                self._take(node, before, takers)
        return self._layers

    def _round(self, node: Node, before: str) -> None:
        index = self._layer_of[node.outputs[0]] = self._layer_of[before]
        self._on_grid.add(node.outputs[0])
        # An output of the model keeps its name, what is rounded to become it gets another one.
        if index is not None and node.kind == _BACK and node.outputs[0] in self._graph.outputs:
            self._layers[index] = replace(self._layers[index], tensor=node.outputs[0])

    def _take(self, node: Node, before: list[str], takers: Mapping[str, int]) -> None:
        tensor = node.outputs[0]
        index = self._layer_of[before[0]]
        joins = node.kind in _JOINS and takers[before[0]] == 1 and before[0] not in self._on_grid
        if joins and index is not None:
            layer = self._layers[index]
            self._layers[index] = replace(layer, tensor=tensor, names=(*layer.names, node.name, tensor))
        else:
            index = len(self._layers)
            grid = all(name in self._on_grid for name in before)
            sources = (self._layer_of[name] for name in before)
            tensors = tuple(self._layers[i].tensor for i in sources if i is not None)
            self._layers.append(GraphLayer(node.name or tensor, node.kind, tensor, tensors, grid, (node.name, tensor)))
        self._layer_of.update(dict.fromkeys(node.outputs, index))
