"""The resize as a graph: the same bytes by integer operators, other bytes by ONNX's own Resize. docs/preprocess.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from edgeseg.preprocess import to_input
from edgeseg.types import Array, Preprocess

Run = Callable[[bytes, Array], Array]


def taps(source: int, target: int, *, is_column: bool) -> tuple[Array, Array, Array, Array]:
    """First and second source pixel of every output pixel, and their shares of 2048."""
    position = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first.astype(np.float32)
    if is_column:
        share = np.where((first < 0) | (first >= source - 1), np.float32(0), share)
        first = first.clip(0, source - 1)
    shares = (np.rint(s * np.float32(2048)).astype(np.int32) for s in (np.float32(1) - share, share))
    return first.clip(0, source - 1), (first + 1).clip(0, source - 1), *shares


def integer_graph(height: int, width: int, size: tuple[int, int]) -> bytes:
    """uint8 [height, width] to float32 [size], by Gather and int32 arithmetic."""
    x0, x1, left, right = taps(width, size[1], is_column=True)
    y0, y1, upper, lower = taps(height, size[0], is_column=False)
    fixed = {"x0": x0, "x1": x1, "y0": y0, "y1": y1, "left": left, "right": right}
    fixed |= {"upper": upper[:, None], "lower": lower[:, None]}
    fixed |= {f"n{n}": np.int32(n) for n in (2, 4, 16, 65536)}
    steps = [
        *(("Gather", ("i", "x0"), "a", {"axis": 1}), ("Gather", ("i", "x1"), "b", {"axis": 1})),
        *(("Mul", ("a", "left"), "c"), ("Mul", ("b", "right"), "d"), ("Add", ("c", "d"), "e")),
        *(
            ("Div", ("e", "n16"), "f"),
            ("Gather", ("f", "y0"), "g", {"axis": 0}),
            ("Gather", ("f", "y1"), "h", {"axis": 0}),
        ),
        *(("Mul", ("g", "upper"), "j"), ("Mul", ("h", "lower"), "k")),
        *(("Div", ("j", "n65536"), "l"), ("Div", ("k", "n65536"), "m"), ("Add", ("l", "m"), "o")),
        *(("Add", ("o", "n2"), "p"), ("Div", ("p", "n4"), "q"), ("Cast", ("q",), "y", {"to": TensorProto.FLOAT})),
    ]
    return model([("Cast", ("x",), "i", {"to": TensorProto.INT32}), *steps], (height, width), size, fixed)


def resize_graph(height: int, width: int, size: tuple[int, int]) -> bytes:
    """The same by the operator that is made for it."""
    options = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    steps = [
        ("Cast", ("x",), "i", {"to": TensorProto.FLOAT}),
        ("Resize", ("i", "", "", "size"), "r", options),
        ("Round", ("r",), "y"),
    ]
    return model(steps, (height, width), size, {"size": np.array(size, np.int64)})


def model(steps: list[Any], shape: tuple[int, int], size: tuple[int, int], fixed: dict[str, Any]) -> bytes:
    nodes = [helper.make_node(op, inputs, [out], **(rest[0] if rest else {})) for op, inputs, out, *rest in steps]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, size)
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in fixed.items()]
    graph = helper.make_graph(nodes, "resize", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def by_onnxruntime(graph: bytes, frame: Array) -> Array:
    return np.asarray(InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": frame})[0])


def by_openvino(graph: bytes, frame: Array) -> Array:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(frame)[0])


def speckle(height: int, width: int) -> Array:
    noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX))


@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])
@pytest.mark.parametrize("shape", [(540, 800), (100, 90), (33, 257), (1, 1), (2, 300)])
def test_integer_operators_give_the_same_bytes(run: Run, shape: tuple[int, int]) -> None:
    frame, size = speckle(*shape), (200, 256)
    expected = to_input(frame, Preprocess(*size))[0, 0]
    np.testing.assert_array_equal(run(integer_graph(*shape, size), frame), expected)


@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])
def test_the_resize_operator_gives_others(run: Run) -> None:
    frame, size = speckle(540, 800), (256, 256)
    expected = to_input(frame, Preprocess(*size))[0, 0]
    difference = np.abs(run(resize_graph(540, 800, size), frame) - expected)
    assert difference.max() == 1
    assert 0.05 < np.mean(difference > 0) < 0.25
