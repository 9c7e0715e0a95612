"""Errors per layer: the tensors are the right ones, the arithmetic is, and a damaged layer is the one that is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg import plugins
from edgeseg.bundle import open_bundle, read_model
from edgeseg.errors import InferenceError
from edgeseg.golden import read_frame
from edgeseg.preprocess import to_input
from edgeseg.runtimes.layer_error import FULL_SCALE_DB, LayerError, layer_errors
from edgeseg.runtimes.onnx_graph import read_graph, with_outputs
from edgeseg.runtimes.runtime import read_file
from edgeseg.testing import PROBE
from edgeseg.types import Model

MODELS = Path(__file__).parent / "models"
RUNTIMES = {"openvino": "xml", "onnxruntime": "onnx", "litert": "tflite"}


def probe_image(nhwc: bool) -> np.ndarray:
    image = np.load(PROBE / "input.npy").astype(np.float32)
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if nhwc else image


def compared(runtime: str, own: Path | Model, exact: Path | Model) -> tuple[LayerError, ...]:
    engine = plugins.runtime(runtime)
    with engine.load(exact, threads=1) as reference, engine.load(own, threads=1) as session:
        return layer_errors(reference, session, [probe_image(runtime == "litert")] * 2)


@pytest.mark.parametrize(("runtime", "suffix"), RUNTIMES.items())
def test_every_convolution_has_its_error(runtime: str, suffix: str) -> None:
    layers = compared(runtime, MODELS / f"probe-int8.{suffix}", PROBE / f"probe.{suffix}")
    convolutions = [layer for layer in layers if "CONV" in layer.kind.upper()]
    assert len(convolutions) == 2
    assert {layer.precision for layer in convolutions} == {"int8"}
    assert all(20 < layer.sqnr_db < 60 for layer in layers)
    assert len({layer.name for layer in layers}) == len(layers)
    # What is lost layer by layer adds up to what the last one has lost.
    last = layers[-1]
    assert sum(layer.drop_db for layer in layers) == pytest.approx(FULL_SCALE_DB - min(FULL_SCALE_DB, last.sqnr_db))


@pytest.mark.parametrize(("runtime", "suffix"), RUNTIMES.items())
def test_the_last_layer_is_as_far_off_as_the_session_itself(runtime: str, suffix: str) -> None:
    layers = compared(runtime, MODELS / f"probe-int8.{suffix}", PROBE / f"probe.{suffix}")
    engine, results = plugins.runtime(runtime), []
    for path in (PROBE / f"probe.{suffix}", MODELS / f"probe-int8.{suffix}"):
        with engine.load(path, threads=1) as session:
            output = session.run({session.inputs[0].name: probe_image(runtime == "litert")})
            results.append(np.array(output[session.outputs[0].name], np.float64))
    exact, own = results
    whole = 10 * np.log10(np.sum(exact**2) / np.sum((exact - own) ** 2))
    assert layers[-1].sqnr_db == pytest.approx(whole, abs=1.0)


@pytest.mark.parametrize(("runtime", "suffix"), RUNTIMES.items())
def test_an_artifact_against_itself_loses_nothing(runtime: str, suffix: str) -> None:
    layers = compared(runtime, PROBE / f"probe.{suffix}", PROBE / f"probe.{suffix}")
    assert {layer.precision for layer in layers} == {"fp32"}
    assert {layer.drop_db for layer in layers} == {0.0}
    assert min(layer.sqnr_db for layer in layers) > 150


def weights_of(runtime: str, model: Model, layer: str) -> np.ndarray:
    """The int8 weights of a convolution by the name of its layer, output channels first."""
    if runtime == "onnxruntime":
        graph = onnx.load_from_string(model.files[0]).graph
        node = next(n for n in graph.node if n.name == layer)
        tensor = node.input[1].removesuffix("_DequantizeLinear_Output") + "_quantized"
        return numpy_helper.to_array(next(t for t in graph.initializer if t.name == tensor))
    if runtime == "openvino":
        import openvino

        ops = openvino.Core().read_model(model=model.files[0], weights=model.files[1]).get_ordered_ops()
        node = next(op for op in ops if op.get_friendly_name() == layer).input_value(1).get_node()
        while node.get_type_name() != "Constant":
            node = node.input_value(0).get_node()
        return np.array(node.data)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model.files[0])
    names = {int(t["index"]): t["name"] for t in interpreter.get_tensor_details()}
    ops = interpreter._get_ops_details()
    node = next(op for op in ops if layer in [names.get(int(t), "") for t in op["outputs"]])
    return np.array(interpreter.get_tensor(int(node["inputs"][1])))


def damaged(model: Model, weights: np.ndarray) -> Model:
    """The model with the sign of half the filters of one convolution turned around."""
    changed = weights.copy()
    changed[::2] = np.where(weights[::2] == -128, 127, -weights[::2])
    old, new = weights.tobytes(), changed.tobytes()
    assert sum(content.count(old) for content in model.files) == 1
    return replace(model, files=tuple(content.replace(old, new) for content in model.files))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_layer_is_the_one_that_loses(runtime: str, bundle: Path) -> None:
    opened = open_bundle(bundle)
    kind = plugins.FORMAT_OF[runtime]
    models = {a.precision: read_model(a) for a in opened.artifacts if a.format is kind}
    engine = plugins.runtime(runtime)

    def errors(own: Model) -> Sequence[LayerError]:
        with engine.load(models["fp32"], threads=1) as exact, engine.load(own, threads=1) as session:
            layout = session.inputs[0].layout
            frames = [to_input(read_frame(g), opened.preprocess, layout) for g in opened.manifest.golden[:2]]
            return layer_errors(exact, session, frames)

    clean = errors(models["int8"])
    convolutions = [layer for layer in clean if "CONV" in layer.kind.upper()]
    assert len(convolutions) == 5
    for victim in convolutions[1:4]:
        name = victim.names[0] if runtime == "litert" else victim.name
        found = errors(damaged(models["int8"], weights_of(runtime, models["int8"], name)))
        worst = max(found, key=lambda layer: layer.drop_db)
        assert worst.names == victim.names
        assert worst.drop_db > victim.drop_db + 10
        at = [layer.names for layer in found].index(victim.names)
        # What is executed before it is not touched by it.
        before = [(a.sqnr_db, b.sqnr_db) for a, b in zip(found[:at], clean[:at], strict=True)]
        assert all(a == pytest.approx(b, abs=0.2) for a, b in before)


def test_a_layer_that_gives_no_numbers_has_lost_everything() -> None:
    engine = plugins.runtime("onnxruntime")
    model = read_file(PROBE / "probe.onnx")
    content = onnx.load_from_string(model.files[0])
    weights = content.graph.initializer[-1]
    values = numpy_helper.to_array(weights).copy()
    values.flat[:] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    with engine.load(model) as exact, engine.load(replace(model, files=(content.SerializeToString(),))) as session:
        layers = layer_errors(exact, session, [probe_image(False)])
    assert min(layer.sqnr_db for layer in layers) == -200


def test_an_engine_without_tensors_says_so() -> None:
    engine = plugins.runtime("fake")
    with (
        engine.load(PROBE / "probe.onnx") as session,
        pytest.raises(InferenceError, match="FakeSession has no results per layer"),
    ):
        layer_errors(session, session, [])


def test_artifacts_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["image"], ["other"])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 24, 32]) for n in ("image", "other")]
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), ir_version=8)
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InferenceError, match="no tensor in common"):
        compared("onnxruntime", tmp_path / "other.onnx", PROBE / "probe.onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_closed_session_is_refused(runtime: str) -> None:
    session = plugins.runtime(runtime).load(PROBE / f"probe.{RUNTIMES[runtime]}")
    session.close()
    with pytest.raises(InferenceError, match="closed"):
        layer_errors(session, session, [probe_image(runtime == "litert")])


def test_the_graph_is_read_as_the_onnx_package_reads_it() -> None:
    data = (MODELS / "probe-int8.onnx").read_bytes()
    graph = read_graph(data)
    theirs = onnx.load_from_string(data).graph
    assert [(n.kind, n.name, list(n.inputs), list(n.outputs)) for n in graph.nodes] == [
        (n.op_type, n.name, list(n.input), list(n.output)) for n in theirs.node
    ]
    assert list(graph.outputs) == [port.name for port in theirs.output]
    assert graph.inputs == ("image",)


def test_outputs_are_added_by_bytes_alone() -> None:
    data = (PROBE / "probe.onnx").read_bytes()
    tensor = read_graph(data).nodes[0].outputs[0]
    more = with_outputs(data, [tensor])
    assert [port.name for port in onnx.load_from_string(more).graph.output] == ["logits", tensor]
    assert len(onnx.load_from_string(more).graph.node) == len(onnx.load_from_string(data).graph.node)
    with plugins.runtime("onnxruntime").load(replace(read_file(PROBE / "probe.onnx"), files=(more,))) as session:
        assert [spec.name for spec in session.outputs] == ["logits", tensor]
        assert session.run({"image": probe_image(False)})[tensor].size > 0


@pytest.mark.parametrize("cut", [1, 7, 100, 1000])
def test_a_cut_model_is_refused_in_words(cut: int) -> None:
    data = (PROBE / "probe.onnx").read_bytes()
    with pytest.raises(InferenceError, match="it is damaged"):
        read_graph(data[:-cut])
    with pytest.raises(InferenceError, match="it is damaged"):
        read_graph(b"\xff" * 40)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_does_not_fit_is_refused(runtime: str) -> None:
    with (
        plugins.runtime(runtime).load(PROBE / f"probe.{RUNTIMES[runtime]}") as session,
        pytest.raises(InferenceError, match="the engine cannot run the model with more outputs"),
    ):
        layer_errors(session, session, [np.zeros((1, 3, 24, 33), np.float32)])
