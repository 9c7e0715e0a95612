"""Just enough of ONNX to write hostile models with, as protobuf's bytes: no onnx package, whose checks would refuse."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from edgeseg.runtimes.protobuf import BYTES, encode_field, number_field

FLOAT, INT64, BOOL = 1, 7, 9
_TYPE_INT, _TYPE_GRAPH, _TYPE_INTS, _TYPE_TENSOR = 2, 5, 7, 4

Attribute = int | bytes | Sequence[int]


class Graph(bytes):
    """An encoded graph, as a value of an attribute."""


class Tensor(bytes):
    """An encoded tensor, as a value of an attribute."""


def _message(field: int, *parts: bytes) -> bytes:
    return encode_field(field, BYTES, b"".join(parts))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def tensor(name: str, shape: Sequence[int], raw: bytes, kind: int = FLOAT) -> Tensor:
    """A constant; its bytes need not fit its shape."""
    dims = b"".join(number_field(1, d) for d in shape)
    return Tensor(dims + number_field(2, kind) + _text(8, name) + _message(9, raw))


def int64s(name: str, *values: int) -> Tensor:
    """A constant of integers [N]."""
    return tensor(name, (len(values),), struct.pack(f"<{len(values)}q", *values), INT64)


def scalar(name: str, value: int, kind: int = INT64) -> Tensor:
    """A constant without dimensions."""
    return tensor(name, (), struct.pack("<q" if kind == INT64 else "<?", value), kind)


def external(name: str, shape: Sequence[int], location: Path | str, length: int) -> Tensor:
    """A constant whose bytes are in another file."""
    entries = {"location": str(location), "offset": "0", "length": str(length)}
    pairs = b"".join(_message(13, _text(1, key), _text(2, value)) for key, value in entries.items())
    dims = b"".join(number_field(1, d) for d in shape)
    return Tensor(dims + number_field(2, FLOAT) + _text(8, name) + pairs + number_field(14, 1))


def value(name: str, shape: Sequence[int] | None, kind: int = FLOAT) -> bytes:
    """The name, type and shape of an input or output; None for any shape."""
    dims = b"".join(_message(1, number_field(1, d)) for d in shape) if shape is not None else b""
    known = _message(2, dims) if shape is not None else b""
    return _text(1, name) + _message(2, _message(1, number_field(1, kind), known))


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Attribute) -> bytes:
    """One operation."""
    names = b"".join(_text(1, n) for n in inputs) + b"".join(_text(2, n) for n in outputs)
    own = b"".join(_message(5, _attribute(k, v)) for k, v in attributes.items())
    return names + _text(4, op) + own + (_text(7, domain) if domain else b"")


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, Graph):
        return _text(1, name) + _message(6, value) + number_field(20, _TYPE_GRAPH)
    if isinstance(value, Tensor):
        return _text(1, name) + _message(5, value) + number_field(20, _TYPE_TENSOR)
    if isinstance(value, int):
        return _text(1, name) + number_field(3, value) + number_field(20, _TYPE_INT)
    return _text(1, name) + b"".join(number_field(8, v) for v in value) + number_field(20, _TYPE_INTS)


def graph(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], constants: Sequence[bytes] = ()
) -> Graph:
    """Operations with what goes in and out."""
    parts = [_message(1, n) for n in nodes] + [_text(2, "g")] + [_message(5, c) for c in constants]
    parts += [_message(11, i) for i in inputs] + [_message(12, o) for o in outputs]
    return Graph(b"".join(parts))


def function(name: str, nodes: Sequence[bytes]) -> bytes:
    """A function of a model, in the domain "f", from x to y."""
    opset = _message(9, _text(1, ""), number_field(2, 17)) + _message(9, _text(1, "f"), number_field(2, 1))
    return (
        _text(1, name)
        + _text(4, "x")
        + _text(5, "y")
        + b"".join(_message(7, n) for n in nodes)
        + opset
        + _text(10, "f")
    )


def model(body: Graph, functions: Sequence[bytes] = ()) -> bytes:
    """The content of an .onnx."""
    opsets = _message(8, _text(1, ""), number_field(2, 17)) + _message(8, _text(1, "f"), number_field(2, 1))
    return number_field(1, 8) + _message(7, body) + opsets + b"".join(_message(25, f) for f in functions)
