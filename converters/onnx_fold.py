"""ONNX Runtime on a model that may come from anywhere: folded and run once, in a process of its own with limits.

A constant that asks for a terabyte, a loop without end or a crash of the engine ends that process and is a typed error
here. As a program (`python -m edgeseg.converters.onnx_fold FOLDER NAME SHAPE MEMORY_MB`) it is that process: it reads
model.onnx and image.npy in FOLDER and writes folded.onnx and output.npy, or tells what went wrong in error.txt.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeseg.converters.weights import first_line
from edgeseg.errors import UnsupportedModel
from edgeseg.types import Array

MEMORY_MB, TIME_S = 1536, 60.0
_MB = 1 << 20
_MODEL, _IMAGE, _FOLDED, _OUTPUT, _ERROR = "model.onnx", "image.npy", "folded.onnx", "output.npy", "error.txt"


def fold(path: Path, model: onnx.ModelProto, name: str, image: Array) -> tuple[onnx.ModelProto, Array]:
    """Static shapes, folded constants and batch norms, by ONNX Runtime's basic optimizer, and what the model computes.

    Args:
        path: of the model, for messages.
        model: without external data.
        name: of its input.
        image: [1, C, H, W] float32, whose shape becomes the input's.

    Returns:
        The folded model (standard operators only), and the first output for `image`.

    Raises:
        UnsupportedModel: ONNX Runtime cannot run it, or not within MEMORY_MB and TIME_S.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / _MODEL).write_bytes(model.SerializeToString())
        np.save(place / _IMAGE, image)
        arguments = [folder, name, json.dumps(image.shape), str(MEMORY_MB)]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", __name__, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIME_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnsupportedModel(f"{path} did not run in {TIME_S:.0f} s: has it a loop without end?") from error
        if ended.returncode:
            told = (place / _ERROR).read_text() if (place / _ERROR).is_file() else f"it ended with {ended.returncode}"
            raise UnsupportedModel(f"{path} cannot be run by ONNX Runtime within {MEMORY_MB} MB of memory: {told}")
        return onnx.load(place / _FOLDED), np.load(place / _OUTPUT)


def _main(folder: Path, name: str, shape: list[int], memory_mb: int) -> None:
    import onnxruntime

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _mapped_bytes() + memory_mb * _MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    model = onnx.load(folder / _MODEL, load_external_data=False)
    original = model.SerializeToString()
    for value in model.graph.input:
        if value.name == name:
            for dim, known in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                dim.dim_value = known
    del model.graph.value_info[:]
    options = _options(onnxruntime)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / _FOLDED)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session = onnxruntime.InferenceSession(original, _options(onnxruntime), providers=["CPUExecutionProvider"])
    np.save(folder / _OUTPUT, session.run(None, {name: np.load(folder / _IMAGE)})[0])


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    return options


def _mapped_bytes() -> int:
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        _main(place, sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))
    except Exception as error:
        (place / _ERROR).write_text(first_line(error)[:300])
        os._exit(1)
