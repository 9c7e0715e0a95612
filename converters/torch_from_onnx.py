"""An .onnx segmenter as a torch module, so that every source goes through one conversion.

Constants are folded and shapes made static by ONNX Runtime's basic optimizer first; what remains is a short list of
operators. One that is not on it is named in the error. ONNX Runtime meets the file in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from edgeseg.converters.onnx_fold import fold
from edgeseg.converters.weights import first_line
from edgeseg.errors import ConversionError, UnsupportedModel
from edgeseg.types import Array

Attributes = dict[str, Any]
Operator = Callable[[list[Any], Attributes], Tensor]

# The key `location` of a TensorProto's external_data, as protobuf writes it.
_EXTERNAL_DATA = b"\x0a\x08location"


def load_onnx(path: Path, size: tuple[int, int] | None = None) -> tuple[nn.Module, tuple[int, int, int]]:
    """The module of an .onnx and its input's (channels, height, width); batch 1.

    Args:
        path: a model with one image input [N, C, H, W] and logits as its first output.
        size: (height, width) for a model whose input size is free; 256x256 by default.

    Raises:
        ConversionError: for a file that is not a valid ONNX model, or whose torch form computes something else.
        UnsupportedModel: for an operator that is not known, or another kind of input.
    """
    try:
        # Without external data: a file that points at other files of this machine is not followed.
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ConversionError(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    if _EXTERNAL_DATA in model.SerializeToString():
        raise ConversionError(f"{path} keeps weights in files outside of it: save it as one file")
    name, shape = _image_input(path, model, size or (256, 256))
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    folded, expected = fold(path, model, name, image)
    module = OnnxModule(folded)
    _prove(path, module, image, expected)
    return module, (shape[1], shape[2], shape[3])


class OnnxModule(nn.Module):
    """Runs the nodes of a folded ONNX graph in order, with torch operators.

    Raises UnsupportedModel for a node whose operator is not known.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        self._slots: dict[str, str] = {}
        self._constants: dict[str, Any] = {}
        self._numbers: dict[str, float | list[float]] = {}
        for tensor in graph.initializer:
            self._add(tensor.name, numpy_helper.to_array(tensor))
        self._nodes: list[tuple[Operator, tuple[str, ...], str, Attributes]] = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._add(node.output[0], numpy_helper.to_array(attributes["value"]))
                continue
            if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
                raise UnsupportedModel(
                    f"operator {node.op_type} (node {node.name or node.output[0]}) is not known to the .onnx reader: "
                    f"export it with other operators or give the torch module"
                )
            inputs = tuple(self._as_number(i) for i in node.input) if node.op_type in _NUMBERS else tuple(node.input)
            self._nodes.append((OPERATORS[node.op_type], inputs, node.output[0], attributes))
        self._input = next(i.name for i in graph.input if i.name not in self._slots)
        self._output = graph.output[0].name

    def _add(self, name: str, array: np.ndarray[Any, Any]) -> None:
        if array.dtype.kind == "f":
            slot = f"t{len(self._slots)}"
            self.register_buffer(slot, torch.from_numpy(np.array(array, np.float32)))
            self._slots[name] = slot
            if array.size <= _FEW:
                self._numbers[name] = array.tolist()
        else:
            self._constants[name] = array.tolist()

    def _as_number(self, name: str) -> str:
        """The name of a constant's value as plain floats, where it has few; else the name itself."""
        if name not in self._numbers:
            return name
        self._constants[f"{name} as a number"] = self._numbers[name]
        return f"{name} as a number"

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, H, W] float32 to the graph's first output."""
        values: dict[str, Any] = {self._input: x, **self._constants}
        values.update({name: getattr(self, slot) for name, slot in self._slots.items()})
        for operator, inputs, output, attributes in self._nodes:
            values[output] = operator([values[i] if i else None for i in inputs], attributes)
        return values[self._output]  # type: ignore[no-any-return]


def _image_input(path: Path, model: onnx.ModelProto, size: tuple[int, int]) -> tuple[str, tuple[int, int, int, int]]:
    constants = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    dims = list(inputs[0].type.tensor_type.shape.dim) if len(inputs) == 1 else []
    if len(dims) != 4 or not dims[1].dim_value:
        raise UnsupportedModel(f"{path} has {len(inputs)} inputs, expected one image [N, C, H, W] with a fixed C")
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise UnsupportedModel(f"{path} takes another type than float32, expected a float32 image")
    height, width = (d.dim_value or s for d, s in zip(dims[2:], size, strict=True))
    return inputs[0].name, (1, dims[1].dim_value, height, width)


def _prove(path: Path, module: nn.Module, image: Array, expected: Array) -> None:
    """The torch form must compute what ONNX Runtime computes from the original file."""
    with torch.inference_mode():
        result = module(torch.from_numpy(image)).numpy()
    tolerance = 1e-3 * max(1.0, float(np.abs(expected).max(initial=0)))
    if result.shape != expected.shape or not np.allclose(result, expected, atol=tolerance):
        raise ConversionError(
            f"{path}: its torch form differs from ONNX Runtime's result; give the torch module instead"
        )


def _pads(attributes: Attributes) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), as torch's F.pad wants them, from ONNX's (top, left, bottom, right)."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UnsupportedModel(f"auto_pad {attributes['auto_pad'].decode()} is not supported, expected explicit pads")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return left, right, top, bottom


def _conv(inputs: list[Any], a: Attributes) -> Tensor:
    left, right, top, bottom = _pads(a)
    x, padding = inputs[0], (top, left)
    if (left, top) != (right, bottom):
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    bias = inputs[2] if len(inputs) > 2 else None
    return F.conv2d(x, inputs[1], bias, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1))


def _conv_transpose(inputs: list[Any], a: Attributes) -> Tensor:
    left, right, top, bottom = _pads(a)
    if (left, top) != (right, bottom):
        raise UnsupportedModel("ConvTranspose with asymmetric pads is not supported")
    bias = inputs[2] if len(inputs) > 2 else None
    extra = a.get("output_padding", 0)
    return F.conv_transpose2d(
        inputs[0], inputs[1], bias, a.get("strides", 1), (top, left), extra, a.get("group", 1), a.get("dilations", 1)
    )


def _resize(inputs: list[Any], a: Attributes) -> Tensor:
    x = inputs[0]
    mode = a.get("mode", b"nearest").decode()
    centres = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    sizes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else None
    size = sizes[2:] if sizes else [round(n * float(s)) for n, s in zip(x.shape[2:], inputs[2][2:], strict=True)]
    if mode == "nearest" and centres == "asymmetric":
        return F.interpolate(x, size, mode="nearest")
    if mode == "linear" and centres in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return F.interpolate(x, size, mode="bilinear", align_corners=centres == "align_corners")
    raise UnsupportedModel(f"Resize with mode {mode} and {centres} is not supported, expected linear or nearest")


def _pool(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: list[Any], a: Attributes) -> Tensor:
        left, right, top, bottom = _pads(a)
        if (left, top) != (right, bottom):
            raise UnsupportedModel("pooling with asymmetric pads is not supported")
        ceil = bool(a.get("ceil_mode", 0))
        return function(inputs[0], a["kernel_shape"], a.get("strides", 1), (top, left), ceil_mode=ceil)

    return run


def _pad(inputs: list[Any], a: Attributes) -> Tensor:
    begin, end = inputs[1][: len(inputs[1]) // 2], inputs[1][len(inputs[1]) // 2 :]
    flat = [v for pair in zip(begin[::-1], end[::-1], strict=True) for v in pair]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[a.get("mode", b"constant").decode()]
    value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return F.pad(inputs[0], flat if mode == "constant" else flat[:4], mode, value if mode == "constant" else None)


def _clip(inputs: list[Any], a: Attributes) -> Tensor:
    low, high = [*inputs[1:], None, None][:2]
    low, high = (None if v is None else float(v) for v in (low, high))
    return F.relu6(inputs[0]) if (low, high) == (0.0, 6.0) else torch.clamp(inputs[0], low, high)


def _reduce_mean(inputs: list[Any], a: Attributes) -> Tensor:
    axes = inputs[1] if len(inputs) > 1 else a["axes"]
    return torch.mean(inputs[0], list(axes), keepdim=bool(a.get("keepdims", 1)))


def _batch_norm(inputs: list[Any], a: Attributes) -> Tensor:
    x, weight, bias, mean, variance = inputs
    return F.batch_norm(x, mean, variance, weight, bias, eps=a.get("epsilon", 1e-5))


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, a: function(inputs[0])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def tensor(value: Any, like: Tensor) -> Tensor:
        return value if isinstance(value, Tensor) else torch.tensor(value, dtype=like.dtype)

    def run(inputs: list[Any], a: Attributes) -> Tensor:
        like = next(i for i in inputs if isinstance(i, Tensor))
        return function(tensor(inputs[0], like), tensor(inputs[1], like))

    return run


# Operators whose bounds and scales must be plain numbers: torch.export cannot look into a tensor.
_NUMBERS = ("Clip", "Pad", "Resize")
_FEW = 8

OPERATORS: dict[str, Operator] = {
    "Add": _binary(torch.add),
    "AveragePool": _pool(F.avg_pool2d),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda i, a: torch.cat(i, a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _binary(torch.div),
    "Dropout": lambda i, a: i[0],
    "Elu": lambda i, a: F.elu(i[0], a.get("alpha", 1.0)),
    "GlobalAveragePool": lambda i, a: torch.mean(i[0], (2, 3), keepdim=True),
    "HardSigmoid": lambda i, a: torch.clamp(i[0] * a.get("alpha", 0.2) + a.get("beta", 0.5), 0, 1),
    "HardSwish": _unary(F.hardswish),
    "Identity": lambda i, a: i[0],
    "LeakyRelu": lambda i, a: F.leaky_relu(i[0], a.get("alpha", 0.01)),
    "MaxPool": _pool(F.max_pool2d),
    "Mul": _binary(torch.mul),
    "PRelu": lambda i, a: F.prelu(i[0], i[1].reshape(-1)),
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _unary(F.relu),
    "Resize": _resize,
    "Sigmoid": _unary(torch.sigmoid),
    "Softplus": _unary(F.softplus),
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": lambda i, a: i[0].permute(*a["perm"]),
}
