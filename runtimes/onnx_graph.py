"""The graph of an ONNX model, read and given more outputs without the onnx package, which no device has.

Only what that needs of onnx.proto3 and of protobuf's wire format (protobuf.dev/programming-guides/encoding): a message
is a sequence of (field number, wire type) keys with their values; of a message field that is there twice, a parser
merges the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgeseg.errors import InferenceError
from edgeseg.runtimes.protobuf import BYTES, FIXED32, FIXED64, LONGEST_VARINT, VARINT, bytes_field

_WIDTHS = {FIXED64: 8, FIXED32: 4}
_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of GraphProto
_TENSOR_NAME = 8


@dataclass(frozen=True, slots=True)
class Node:
    """An operation; names of tensors it takes (empty for an optional one left out) and gives."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Operations in the order of the file, which is one of execution; inputs are those that are no weights."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(model: bytes) -> Graph:
    """Parse a model. Raises InferenceError for what is no protobuf message."""
    nodes, names = [], {field: list[str]() for field in (_INITIALIZER, _INPUT, _OUTPUT)}
    for field, value in _fields(memoryview(model)):
        for part, content in _fields(value) if field == _GRAPH else ():
            if part == _NODE:
                nodes.append(_node(content))
            elif part in names:
                names[part].append(_text(content, _TENSOR_NAME if part == _INITIALIZER else 1))
    weights = set(names[_INITIALIZER])
    inputs = tuple(name for name in names[_INPUT] if name not in weights)
    return Graph(tuple(nodes), inputs, tuple(names[_OUTPUT]))


def with_outputs(model: bytes, tensors: Iterable[str]) -> bytes:
    """The model with more tensors as outputs; the engine finds out their types."""
    graph = b"".join(bytes_field(_OUTPUT, bytes_field(1, name.encode())) for name in tensors)
    return model + bytes_field(_GRAPH, graph)


def _node(message: memoryview) -> Node:
    found: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for field, value in _fields(message):
        if field in found:
            found[field].append(_decoded(value))
    inputs, outputs, name, kind = found.values()
    return Node("".join(name[-1:]), "".join(kind[-1:]), tuple(inputs), tuple(outputs))


def _text(message: memoryview, wanted: int) -> str:
    return next((_decoded(value) for field, value in _fields(message) if field == wanted), "")


def _decoded(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Field numbers and contents; that of a number is empty, none is needed here."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == VARINT:
            _, at = _varint(message, at)
            yield field, message[:0]
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in _WIDTHS:
            size = _WIDTHS[wire]
        else:
            raise InferenceError(f"the ONNX model has wire type {wire}, which protobuf does not: it is damaged")
        if at + size > len(message):
            raise InferenceError("the ONNX model ends within a field: it is damaged")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : at + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise InferenceError("the ONNX model ends within a number: it is damaged")
