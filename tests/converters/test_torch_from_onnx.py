"""ONNX sources: read back as torch, whoever exported them, or refused with the operator's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeseg.converters.source import SourceOptions, load_source
from edgeseg.errors import ConversionError, UnsupportedModel


class Net(nn.Module):
    """What real segmenters are made of: batch norm, pooling, transposed convolution, resize, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.up, self.head = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        b = self.up(self.b(nn.functional.max_pool2d(a, 2)))
        c = nn.functional.interpolate(nn.functional.avg_pool2d(a, 2), scale_factor=2, mode="bilinear")
        return self.head(torch.cat((nn.functional.leaky_relu(b), torch.sigmoid(c) * a), 1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    net = Net()
    for _ in range(3):
        net(torch.randn(2, 1, 32, 32))
    return net.eval()


def same_as_onnxruntime(path: Path, size: tuple[int, int] | None = None) -> None:
    source = load_source(str(path), SourceOptions(size=size))
    pixels = np.random.default_rng(0).uniform(0, 255, source.example.shape).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {session.get_inputs()[0].name: pixels / 255})
    np.testing.assert_allclose(source.run(pixels), want, atol=1e-4)
    # What every conversion needs: a graph without data-dependent values.
    torch.export.export(source.network, (source.example,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_a_legacy_export_with_free_sizes_and_batch_norms(
    network: nn.Module, size: tuple[int, int] | None, tmp_path: Path
) -> None:
    path = tmp_path / "legacy.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 32, 32),),
        path,
        dynamo=False,
        opset_version=13,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["x"],
        dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}},
    )
    assert "BatchNormalization" in {n.op_type for n in onnx.load(path).graph.node}
    same_as_onnxruntime(path, size)


def test_a_dynamo_export(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "dynamo.onnx"
    torch.onnx.export(network, (torch.zeros(1, 1, 32, 64),), path, dynamo=True, external_data=False, verbose=False)
    same_as_onnxruntime(path)


def graph(*nodes: onnx.NodeProto, shape: tuple[int | str, ...] = (1, 1, 8, 8), kind: int = TensorProto.FLOAT) -> bytes:
    image = helper.make_tensor_value_info("x", kind, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 8, 8))
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    proto = helper.make_graph(nodes, "g", [image], [result], [weight])
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    data = graph(helper.make_node("Mod", ["x", "x"], ["y"], name="odd", fmod=1))
    with pytest.raises(UnsupportedModel, match=r"operator Mod \(node odd\)"):
        load_source(write(tmp_path / "mod.onnx", data))


def test_an_operator_of_another_domain_is_named(tmp_path: Path) -> None:
    proto = onnx.load_from_string(graph(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedModel, match="operator Gelu"):
        load_source(write(tmp_path / "custom.onnx", proto.SerializeToString()))


def test_automatic_padding_is_refused_or_folded_away(tmp_path: Path) -> None:
    data = graph(helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER"))
    path = write(tmp_path / "same.onnx", data)
    try:
        same_as_onnxruntime(Path(path))
    except UnsupportedModel as error:
        assert "auto_pad SAME_LOWER" in str(error)


def test_asymmetric_padding_is_computed_right(tmp_path: Path) -> None:
    data = graph(helper.make_node("Conv", ["x", "w"], ["y"], pads=[0, 0, 2, 2]))
    same_as_onnxruntime(Path(write(tmp_path / "pads.onnx", data)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": TensorProto.UINT8}, "takes another type than float32"),
        ({"shape": (1, 64)}, "expected one image"),
        ({"shape": (1, "c", 8, 8)}, "with a fixed C"),
    ],
)
def test_another_kind_of_input_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    data = graph(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), **options)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModel, match=message):
        load_source(write(tmp_path / "input.onnx", data))


@pytest.mark.parametrize("spoil", ["empty", "half", "noise"])
def test_a_damaged_file_is_one_typed_error(spoil: str, tmp_path: Path) -> None:
    data = graph(helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]))
    noise = np.random.default_rng(0).bytes(500)
    path = write(tmp_path / "bad.onnx", {"empty": b"", "half": data[: len(data) // 2], "noise": noise}[spoil])
    with pytest.raises(ConversionError, match=r"bad.onnx is not a valid ONNX model") as caught:
        load_source(path)
    assert "\n" not in str(caught.value)


def test_external_data_is_not_followed(tmp_path: Path) -> None:
    proto = onnx.load_from_string(graph(helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.full(9, 7, np.float32).tobytes())
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    with pytest.raises(ConversionError):
        load_source(write(tmp_path / "outside.onnx", proto.SerializeToString()))
