"""An ONNX model of one wide convolution, written byte by byte: the device has no onnx package.

Only what such a model needs of onnx.proto3 and of protobuf's wire format (protobuf.dev/programming-guides/encoding):
a message is a sequence of (field number, wire type) keys with their values, 0 a varint and 2 bytes with their length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseg.runtimes.protobuf import bytes_field, number_field
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
    graph = bytes_field(1, node) + bytes_field(2, b"wide")
    graph += b"".join(bytes_field(5, _tensor(name, np.asarray(value))) for name, value in constants.items())
    graph += bytes_field(11, _value("x", kind, shape)) + bytes_field(12, _value("y", kind, shape))
    return number_field(1, _IR_VERSION) + bytes_field(7, graph) + bytes_field(8, number_field(2, _OPSET))


def _node(kind: str, inputs: Sequence[str]) -> bytes:
    pads = b"".join(number_field(8, _KERNEL // 2) for _ in range(4))
    attribute = bytes_field(1, b"pads") + pads + number_field(20, _ATTRIBUTE_INTS)
    names = b"".join(bytes_field(1, name.encode()) for name in inputs)
    called = bytes_field(3, kind.encode()) + bytes_field(4, kind.encode())
    return names + bytes_field(2, b"y") + called + bytes_field(5, attribute)


def _tensor(name: str, array: Array) -> bytes:
    dims = b"".join(number_field(1, side) for side in array.shape)
    kind = number_field(2, _TYPES[array.dtype.name])
    return dims + kind + bytes_field(8, name.encode()) + bytes_field(9, array.tobytes())


def _value(name: str, kind: int, shape: Sequence[int]) -> bytes:
    dims = b"".join(bytes_field(1, number_field(1, side)) for side in shape)
    return bytes_field(1, name.encode()) + bytes_field(2, bytes_field(1, number_field(1, kind) + bytes_field(2, dims)))
