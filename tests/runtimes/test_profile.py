"""Times per layer, multiply-accumulates from the engines' own shapes, and the peak they are held against."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg import plugins
from edgeseg.errors import BadInput, InferenceError
from edgeseg.evidence import LayerTime
from edgeseg.runtimes.macs import convolution_macs, product_macs
from edgeseg.runtimes.onnx_wide import wide_model
from edgeseg.runtimes.profile import Peak, core_peak, profile
from edgeseg.testing import PROBE

MODELS = Path(__file__).parent / "models"
PROBE_MACS = [24 * 32 * 8 * 3 * 9, 24 * 32 * 2 * 8 * 9]
FILES = {
    ("openvino", "fp32"): PROBE / "probe.xml",
    ("openvino", "int8"): MODELS / "probe-int8.xml",
    ("onnxruntime", "fp32"): PROBE / "probe.onnx",
    ("onnxruntime", "int8"): MODELS / "probe-int8.onnx",
}


def profiled(runtime: str, path: Path, shape: tuple[int, ...] = (1, 3, 24, 32)) -> tuple[LayerTime, ...]:
    with plugins.runtime(runtime).load(path, threads=1) as session:
        return profile(session, {session.inputs[0].name: np.full(shape, 100, np.float32)}, 9)


@pytest.mark.parametrize(("runtime", "precision"), FILES)
def test_every_layer_has_its_time_precision_and_macs(runtime, precision, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    layers = profiled(runtime, FILES[runtime, precision])
    convolutions = [layer for layer in layers if "Conv" in layer.kind]
    assert [layer.macs for layer in convolutions] == PROBE_MACS
    assert {layer.precision for layer in convolutions} == {precision}
    assert all(layer.macs is None for layer in layers if layer not in convolutions)
    assert all(layer.time_us >= 0 and layer.name and layer.kind for layer in layers)
    assert 0 < sum(layer.time_us for layer in layers) < 1e5
    assert len({layer.name for layer in layers}) == len(layers)
    assert list(tmp_path.iterdir()) == []


def grouped_network(path: Path) -> list[int]:
    """A strided convolution to 24 channels, a depthwise one, a transposed one to 5, a product; returns their MACs."""
    random = np.random.default_rng(0)
    shapes = {"a": (24, 3, 3, 3), "b": (24, 1, 3, 3), "c": (24, 5, 2, 2), "d": (16, 7)}
    weights = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["xa"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Conv", ["xa", "b"], ["xb"], pads=[1] * 4, group=24),
        helper.make_node("ConvTranspose", ["xb", "c"], ["xc"], strides=[2, 2]),
        helper.make_node("MatMul", ["xc", "d"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 8, 16]), ("y", None))]
    graph = helper.make_graph(nodes, "grouped", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return [4 * 8 * 24 * 3 * 9, 4 * 8 * 24 * 9, 4 * 8 * 24 * 5 * 4, 5 * 8 * 16 * 7]


def test_strides_groups_transposed_convolutions_and_products_are_counted_alike_by_both_engines(tmp_path):
    import openvino

    expected = grouped_network(tmp_path / "model.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "model.onnx"), tmp_path / "model.xml", compress_to_fp16=False)
    for runtime, file in (("onnxruntime", "model.onnx"), ("openvino", "model.xml")):
        layers = profiled(runtime, tmp_path / file, (1, 3, 8, 16))
        assert [layer.macs for layer in layers if layer.macs] == expected, runtime


def test_macs_do_not_depend_on_the_layout():
    assert convolution_macs((1, 3, 8, 8), (16, 3, 3, 3), (1, 16, 8, 8)) == 64 * 16 * 27
    assert convolution_macs((1, 8, 8, 3), (16, 3, 3, 3), (1, 8, 8, 16)) == 64 * 16 * 27
    assert convolution_macs((1, 16, 8, 8), (16, 1, 1, 3, 3), (1, 16, 8, 8)) == 64 * 16 * 9
    assert convolution_macs((1, 4, 8, 8), (4, 6, 2, 2), (1, 6, 16, 16), transposed=True) == 64 * 4 * 6 * 4
    assert product_macs((2, 5, 7), (2, 5, 3)) == 2 * 5 * 3 * 7


def test_what_does_not_fit_is_refused():
    with plugins.runtime("openvino").load(PROBE / "probe.xml", threads=1) as session:
        name = session.inputs[0].name
        with pytest.raises(BadInput, match="has shape"):
            profile(session, {name: np.zeros((1, 3, 24, 33), np.float32)}, 1)
    with pytest.raises(InferenceError, match="closed"):
        profile(session, {name: np.zeros((1, 3, 24, 32), np.float32)}, 1)


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [("litert", "litert has no times per layer in Python"), ("fake", "FakeSession has no times per layer")],
)
def test_an_engine_without_a_clock_for_layers_says_so(runtime, reason):
    with (
        plugins.runtime(runtime).load(PROBE / "probe.tflite", threads=1) as session,
        pytest.raises(InferenceError, match=reason),
    ):
        profile(session, {session.inputs[0].name: np.zeros(session.inputs[0].shape, np.float32)}, 1)


@pytest.mark.parametrize("int8", [True, False])
def test_the_wide_onnx_model_is_a_valid_convolution(int8):
    data = wide_model(16, 4, int8)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["QLinearConv" if int8 else "Conv"]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    image = np.ones((1, 16, 4, 4), np.uint8 if int8 else np.float32)
    (output,) = session.run(None, {"x": image})
    weights = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w")
    inner = weights.astype(np.float64).sum((1, 2, 3))  # away from the border every weight meets a one
    expected = np.clip(np.rint(inner * 0.01), 0, 255) if int8 else inner
    assert output[0, :, 1, 1] == pytest.approx(expected, abs=1 if int8 else 1e-4)


def test_the_peak_is_measured_once_and_above_what_small_layers_reach():
    peak = core_peak(1)
    assert peak is core_peak(1)
    assert peak is not None
    assert peak.runtime in ("openvino", "onnxruntime")
    assert peak.threads == 1
    assert min(peak.int8_gmacs, peak.fp32_gmacs) > 0.5
    wide = plugins.runtime("openvino").wide_layers(True, 1, 5)
    best = max(layer.gmacs_per_s or 0 for layer in wide)
    assert {layer.precision for layer in wide if layer.macs} == {"int8"}
    assert best < 1.5 * peak.int8_gmacs
    share = peak.share_of(profiled("openvino", FILES["openvino", "int8"]))
    assert share is not None
    assert 0 < share < 0.9


def test_a_share_is_the_time_at_the_peak_over_the_time_taken():
    peak = Peak(int8_gmacs=200.0, fp32_gmacs=50.0, runtime="openvino", threads=1)
    quantized, exact = LayerTime("a", "Conv", "int8", 10.0, 1_000_000), LayerTime("b", "Conv", "fp32", 40.0, 1_000_000)
    resize = LayerTime("c", "Resize", "fp32", 50.0)
    assert peak.share_of([quantized]) == pytest.approx(0.5)
    assert peak.share_of([exact]) == pytest.approx(0.5)
    assert peak.share_of([quantized, exact, resize]) == pytest.approx(25 / 100)
    assert peak.share_of([resize]) is None
    assert peak.share_of([LayerTime("d", "Conv", "bf16", 10.0, 1000)]) is None
    assert peak.share_of([LayerTime("e", "Conv", "int8", 0.0, 1000)]) is None
    assert LayerTime("e", "Conv", "int8", 0.0, 1000).gmacs_per_s is None
    assert quantized.gmacs_per_s == pytest.approx(100.0)
