"""int8 by Olive, in the peers' own environment: `python olive_int8.py MODEL.onnx FRAMES OUT.onnx [OPTIONS_JSON]`.

FRAMES has one folder named like the model's input, with one file of raw float32 a frame. The pass is
OnnxStaticQuantization (Olive's static int8 for ONNX models); what OPTIONS_JSON does not set is Olive's default.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"


def run_config(model: Path, frames: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Olive's workflow of one pass, as `olive run --config` would read it."""
    import onnx

    port = onnx.load(model).graph.input[0]
    shape = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
    calibration = {"data_dir": str(frames), "input_names": [port.name], "input_shapes": [shape]}
    accelerator = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(model)},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "data_configs": [
            {"name": "frames", "type": "RawDataContainer", "load_dataset_config": {"params": calibration}}
        ],
        "passes": {"int8": {"type": "OnnxStaticQuantization", "data_config": "frames", **options}},
        "host": "here",
        "target": "here",
        "output_dir": str(out),
        "cache_dir": str(out / "cache"),
    }


def main(model: Path, frames: Path, out: Path, options: dict[str, Any]) -> None:
    """Quantize and keep the model alone."""
    import olive  # type: ignore[import-not-found]  # in the peers' environment only

    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        olive.run(run_config(model, frames, Path(folder), options))
        shutil.copyfile(Path(folder) / "model.onnx", out)


if __name__ == "__main__":
    source, calibration, result = (Path(argument).resolve() for argument in sys.argv[1:4])
    main(source, calibration, result, json.loads(sys.argv[4]) if sys.argv[4:] else {})
