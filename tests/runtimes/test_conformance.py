"""Every runtime passes the suite that ships."""

from __future__ import annotations

import numpy as np

from edgeseg.testing import PROBE, RuntimeConformance


class TestOnnxRuntime(RuntimeConformance):
    runtime_name = "onnxruntime"
    artifact = PROBE / "probe.onnx"


class TestOpenVino(RuntimeConformance):
    runtime_name = "openvino"
    artifact = PROBE / "probe.xml"


class TestLiteRt(RuntimeConformance):
    runtime_name = "litert"
    artifact = PROBE / "probe.tflite"


def _fake_logits() -> np.ndarray:
    """The fake's formula for a 256 x 256 ramp along the width: the blur leaves it as it is, except at the borders."""
    row = np.arange(256, dtype=np.float64)
    row[0], row[-1] = 1 / 3, 255 - 1 / 3
    return np.broadcast_to((row - 127.5) / 127.5, (1, 1, 256, 256)).astype(np.float32)


class TestFake(RuntimeConformance):
    runtime_name = "fake"
    artifact = PROBE / "probe.tflite"
    example = np.broadcast_to(np.arange(256, dtype=np.float32), (1, 1, 256, 256)).copy()
    expected = _fake_logits()
    parses = False
