"""The layers of a TFLite model as it was written, and their results, which an interpreter can be told to keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from posixpath import commonpath
from typing import Any

import numpy as np

from edgeseg.runtimes.layer_error import Expose, GraphLayer
from edgeseg.types import Array

_ROUNDS = frozenset(("QUANTIZE", "DEQUANTIZE"))
_DELEGATE = "DELEGATE"
_WRAPPERS = 2  # modules around the network: one for the layout, one for the normalisation
# The path of a module as the converter writes it, as in `a.b.Conv2d_0`: only the class and its place say something.
_PACKAGES = re.compile(r"(?:\w+\.)+")


def graph_layers(interpreter: Any) -> tuple[GraphLayer, ...]:
    """The layers of a loaded model, in order."""
    names = {int(tensor["index"]): str(tensor["name"]) for tensor in interpreter.get_tensor_details()}
    quantized = {int(t["index"]) for t in interpreter.get_tensor_details() if np.issubdtype(t["dtype"], np.integer)}
    return tuple(_named(list(_layers(interpreter, names, quantized))))


def expose(interpreter: Any, index: int, encode: Callable[[Array], Array], tensors: Sequence[str]) -> Expose:
    """Results of an interpreter that keeps all its tensors.

    Args:
        interpreter: allocated, with `experimental_preserve_all_tensors`.
        index: of the input.
        encode: real numbers to what the input is to be set to.
        tensors: by name.
    """
    details = {str(tensor["name"]): tensor for tensor in interpreter.get_tensor_details()}
    found = {name: details[name] for name in tensors if name in details}

    def run(image: Array) -> Mapping[str, Array]:
        interpreter.set_tensor(index, encode(image))
        interpreter.invoke()
        return {name: _real(interpreter.get_tensor(tensor["index"]), tensor) for name, tensor in found.items()}

    return run


def _real(array: Array, tensor: Mapping[str, Any]) -> Array:
    scale, zero = tensor["quantization"]
    real: Array = (array.astype(np.float32) - np.float32(zero)) * np.float32(scale) if scale else array
    return real


def _layers(interpreter: Any, names: Mapping[int, str], quantized: set[int]) -> Iterator[GraphLayer]:
    reached: dict[int, str] = {int(port["index"]): "" for port in interpreter.get_input_details()}
    for node in interpreter._get_ops_details():
        before = [int(t) for t in node["inputs"] if int(t) in reached]
        outputs = [int(t) for t in node["outputs"]]
        if not before or not outputs or node["op_name"] == _DELEGATE:
            continue
        if node["op_name"] in _ROUNDS:
            reached.update(dict.fromkeys(outputs, reached[before[0]]))
            continue
        tensor = names[outputs[0]]
        sources = tuple(reached[t] for t in before if reached[t])
        grid = all(t in quantized for t in before)
        yield GraphLayer(tensor, str(node["op_name"]), tensor, sources, grid, (tensor,))
        reached.update(dict.fromkeys(outputs, tensor))


def _named(layers: Sequence[GraphLayer]) -> Iterator[GraphLayer]:
    """With names for people: of what was fused the first one's, without packages and what all have in common."""
    paths = [_PACKAGES.sub("", layer.tensor.split(";;")[0]).rstrip(";") for layer in layers]
    deep = [path for path in paths if path.count("/") >= _WRAPPERS]
    common = commonpath(deep) + "/" if deep else ""
    for layer, path in zip(layers, paths, strict=True):
        yield replace(layer, name=path.removeprefix(common))
