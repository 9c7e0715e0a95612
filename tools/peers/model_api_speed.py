"""openvino model_api's SegmentationModel, in its own environment: `python model_api_speed.py MODEL.xml FRAME.npy`.

Reads a number of calls a line, makes them, and answers with the seconds of each as JSON. What is not needed for a mask
is switched off; the rest is what the package does when nothing is set, on one core and in float32.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter

import cv2
import numpy as np


def main(model: str, frame: str) -> None:
    """Serve until the input ends."""
    import openvino
    from model_api.adapters import OpenvinoAdapter  # type: ignore[import-not-found]  # in that environment only
    from model_api.models import SegmentationModel  # type: ignore[import-not-found]

    cv2.setNumThreads(1)
    config = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1,
    }  # fmt: skip
    adapter = OpenvinoAdapter(openvino.Core(), model, device="CPU", plugin_config=config, max_num_requests=1)
    segmenter = SegmentationModel(adapter, {"return_soft_prediction": False}, preload=True)
    image = np.load(frame)
    mask = segmenter(image)
    print(json.dumps({"shape": mask.shape, "foreground": float((mask > 0).mean())}), flush=True)
    for line in sys.stdin:
        print(json.dumps([_seconds(segmenter, image) for _ in range(int(line))]), flush=True)


def _seconds(segmenter: object, image: np.ndarray) -> float:  # type: ignore[type-arg]
    start = perf_counter()
    segmenter(image)  # type: ignore[operator]
    return perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:3])
