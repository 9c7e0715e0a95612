"""The one calibration: the same frames and the same estimator for every engine.

The range of a tensor is the mean over the frames of each frame's minimum and maximum. Against plain min-max one odd
frame does not stretch it; against an engine's own moving average it does not depend on the order of frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgeseg.types import Array

Range = tuple[float, float]


def onnx_ranges(model: Path, inputs: Sequence[Array]) -> dict[str, Range]:
    """The range of every 4-D float tensor of an fp32 ONNX model.

    Args:
        model: the file; its tensor names are the keys of the result.
        inputs: raw pixels [1, C, H, W] float32, one a frame.
    """
    graph = onnx.load(model)
    known = {o.name for o in graph.graph.output}
    tensors = [o for node in graph.graph.node if node.op_type != "Constant" for o in node.output]
    graph.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    names = [o.name for o in session.get_outputs()]
    seen: dict[str, list[Range]] = defaultdict(list)
    for pixels in inputs:
        for name, value in [(image, pixels), *zip(names, session.run(None, {image: pixels}), strict=True)]:
            if value.ndim == 4 and value.dtype == np.float32:
                seen[name].append((float(value.min()), float(value.max())))
    return {name: mean_range(np.array(pairs)) for name, pairs in seen.items()}


def mean_range(pairs: NDArray[np.float64]) -> Range:
    """(mean of the minima, mean of the maxima) of [N, 2]."""
    low, high = pairs.mean(0)
    return float(low), float(high)
