"""int8 by plain NNCF, in the peers' own environment: `python nncf_int8.py MODEL.onnx FRAMES OUT.xml`.

FRAMES has one folder named like the model's input, with one file of raw float32 a frame. What runs is
`nncf.quantize(model, dataset)` on the OpenVINO model, every option at its default.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(model: Path, frames: Path, out: Path) -> None:
    """Quantize and save."""
    import nncf
    import openvino

    fp32 = openvino.convert_model(model)
    port = fp32.inputs[0]
    files = sorted((frames / port.get_any_name()).iterdir())
    images = [np.fromfile(file, np.float32).reshape(tuple(port.get_shape())) for file in files]
    openvino.save_model(nncf.quantize(fp32, nncf.Dataset(images)), out, compress_to_fp16=False)


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:4]))
