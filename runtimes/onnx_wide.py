"""An ONNX model of one wide convolution, written byte by byte: the device has no onnx package.

Only what such a model needs of onnx.proto3 and of protobuf's wire format (protobuf.dev/programming-guides/encoding):
a message is a sequence of (field number, wire type) keys with their values, 0 a varint and 2 bytes with their length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseg.types import Array

_IR_VERSION, _OPSET = 8, 18
_FLOAT, _UINT8, _INT8 = 1, 2, 3
_TYPES = {"float32": _FLOAT, "uint8": _UINT8, "int8": _INT8}
_ATTRIBUTE_INTS = 7
_KERNEL = 3
WIDE = ((256, 8), (128, 16))
"""Channels and side of models whose weights and activations stay in a core's own cache."""


def wide_model(channels: int, side: int, int8: bool) -> bytes:
    """A 3x3 convolution from [1, C, S, S] to the same, uint8 or float32: the input is `x`, the output `y`."""
    values = np.random.default_rng(0).uniform(-1, 1, (channels, channels, _KERNEL, _KERNEL))
    if int8:
        scale, zero = np.float32(0.01), np.uint8(0)
        constants = {
            "xs": scale,
            "xz": zero,
            "w": np.rint(values * 127).astype(np.int8),
            "ws": scale,
            "wz": np.int8(0),
            "ys": scale,
            "yz": zero,
        }
        node = _node("QLinearConv", ("x", *constants))
    else:
        constants = {"w": values.astype(np.float32)}
        node = _node("Conv", ("x", "w"))
    kind, shape = _UINT8 if int8 else _FLOAT, (1, channels, side, side)
    graph = _bytes(1, node) + _bytes(2, b"wide")
    graph += b"".join(_bytes(5, _tensor(name, np.asarray(value))) for name, value in constants.items())
    graph += _bytes(11, _value("x", kind, shape)) + _bytes(12, _value("y", kind, shape))
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _number(2, _OPSET))


def _node(kind: str, inputs: Sequence[str]) -> bytes:
    pads = b"".join(_number(8, _KERNEL // 2) for _ in range(4))
    attribute = _bytes(1, b"pads") + pads + _number(20, _ATTRIBUTE_INTS)
    names = b"".join(_bytes(1, name.encode()) for name in inputs)
    return names + _bytes(2, b"y") + _bytes(3, kind.encode()) + _bytes(4, kind.encode()) + _bytes(5, attribute)


def _tensor(name: str, array: Array) -> bytes:
    dims = b"".join(_number(1, side) for side in array.shape)
    return dims + _number(2, _TYPES[array.dtype.name]) + _bytes(8, name.encode()) + _bytes(9, array.tobytes())


def _value(name: str, kind: int, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
