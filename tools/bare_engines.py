"""Engines without edgeseg: the calling sequences that each of them offers, and the script that one would write first.

All of them run what edgeseg runs, with the same options: one artifact, so many threads, nothing that spins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from edgeseg.types import Array, Artifact, Format, Layout, TensorSpec

Call = Callable[[], object]


def sequences(artifact: Artifact, threads: int) -> Mapping[str, Call]:
    """Ways to run an artifact once on an input that is there already, as float32 of the network's size."""
    make = {Format.ONNX: _onnx, Format.OPENVINO: _openvino, Format.TFLITE: _litert}[artifact.format]
    return make(artifact, threads)


def plain_script(artifact: Artifact, threads: int, lean: bool = False) -> Callable[[Array], Array]:
    """Frame to the same mask by OpenCV and an .onnx in ONNX Runtime: resize, run, resize the logits, decide.

    `lean` is for who knows that a sigmoid above one half is a logit above zero.
    """
    session = onnx_session(artifact, threads)
    name, (_, channels, height, width) = session.get_inputs()[0].name, session.get_inputs()[0].shape

    def segment(frame: Array) -> Array:
        image = cv2.resize(frame, (width, height)).astype(np.float32)
        image = image[None, None] if channels == 1 else image.transpose(2, 0, 1)[None]
        logits = session.run(None, {name: np.ascontiguousarray(image)})[0][0].transpose(1, 2, 0)
        logits = cv2.resize(logits, frame.shape[1::-1])
        if logits.ndim == 3:
            return logits.argmax(2).astype(np.uint8)
        return (logits > 0 if lean else 1 / (1 + np.exp(-logits)) > 0.5).astype(np.uint8)

    return segment


def onnx_session(artifact: Artifact, threads: int) -> Any:
    """An onnxruntime.InferenceSession."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])


def pixels_of(spec: TensorSpec) -> Array:
    """An input of noise."""
    return np.random.default_rng(0).integers(0, 256, spec.shape).astype(np.float32)


def network_frame(artifact: Artifact) -> Array:
    """The same noise as a frame [h, w] or [h, w, 3] uint8."""
    spec = artifact.inputs[0]
    image = pixels_of(spec)[0].astype(np.uint8)
    image = image.transpose(1, 2, 0) if spec.layout is Layout.NCHW else image
    return np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _onnx(artifact: Artifact, threads: int) -> Mapping[str, Call]:
    session = onnx_session(artifact, threads)
    source, sink = artifact.inputs[0], artifact.outputs[0]
    image, logits, binding = pixels_of(source), np.zeros(sink.shape, np.float32), session.io_binding()
    binding.bind_input(source.name, "cpu", 0, np.float32, image.shape, image.ctypes.data)
    binding.bind_output(sink.name, "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
    return {
        "run": lambda: (session.run([sink.name], {source.name: image}), logits)[0],
        "run_with_iobinding, own memory": lambda: session.run_with_iobinding(binding),
    }


def _openvino(artifact: Artifact, threads: int) -> Mapping[str, Call]:
    import openvino

    core = openvino.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(artifact.path, "CPU", config).create_infer_request()
    memory = pixels_of(artifact.inputs[0]), np.zeros(artifact.outputs[0].shape, np.float32)
    request.set_input_tensor(0, openvino.Tensor(memory[0], shared_memory=True))
    request.set_output_tensor(0, openvino.Tensor(memory[1], shared_memory=True))
    return {
        "infer(share_outputs=True), preset tensors": lambda: (request.infer(share_outputs=True), memory)[0],
        "start_async and wait, preset tensors": lambda: (request.start_async(share_inputs=True), request.wait()),
    }


def _litert(artifact: Artifact, threads: int) -> Mapping[str, Call]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(artifact.path), num_threads=threads)
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    image = pixels_of(artifact.inputs[0])

    def run() -> Array:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        return interpreter.get_tensor(sink)

    return {"set_tensor, invoke, get_tensor": run}
