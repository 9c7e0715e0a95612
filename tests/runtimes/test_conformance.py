"""Every runtime passes the suite that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeseg.runtimes.isolated import IsolatedSession, IsolatedWorker
from edgeseg.runtimes.litert_runtime import LiteRtRuntime
from edgeseg.testing import HALF_TOLERANCE, PROBE, RuntimeConformance
from edgeseg.types import Model


class TestOnnxRuntime(RuntimeConformance):
    runtime_name = "onnxruntime"
    artifact = PROBE / "probe.onnx"
    tolerances = {"tensorrt": HALF_TOLERANCE, "cuda": 1e-4}


class TestOpenVino(RuntimeConformance):
    runtime_name = "openvino"
    artifact = PROBE / "probe.xml"
    tolerances = {"npu": HALF_TOLERANCE, "gpu": 1e-4}


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


class IsolatedLiteRt(LiteRtRuntime):
    """Every session in a process of its own."""

    def load(self, artifact: Path | Model, *, device: str = "auto", threads: int | None = None) -> IsolatedSession:
        worker = IsolatedWorker(self.name)
        try:
            return worker.load(artifact, device=device, threads=threads, last=True)
        except BaseException:
            worker.close()
            raise


class TestIsolated(RuntimeConformance):
    runtime_name = "litert"
    artifact = PROBE / "probe.tflite"

    def make_runtime(self) -> IsolatedLiteRt:
        return IsolatedLiteRt()
