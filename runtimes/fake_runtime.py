"""A deterministic stand-in that needs no engine: for tests of everything around a runtime, and for first steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgeseg import __version__
from edgeseg.engine_options import Options
from edgeseg.evidence import Execution
from edgeseg.runtimes.runtime import DeviceProof, EngineRuntime, EngineSession
from edgeseg.types import Array, Format, Layout, Model, Precision, TensorSpec

_DEFAULT_SIDE = 256
_MID_GRAY = 127.5


class FakeRuntime(EngineRuntime):
    """Accepts a file of every format and segments what is brighter than mid-gray; the weights are never looked at.

    Inputs and outputs are those of the manifest of the bundle the model is from, else [1, 1, 256, 256] float32.
    """

    name: ClassVar[str] = "fake"
    formats: ClassVar[frozenset[Format]] = frozenset(Format)
    device_names: ClassVar[tuple[str, ...]] = ("cpu",)

    def version(self) -> str:
        """The version of edgeseg."""
        return __version__

    def proofs(self) -> tuple[DeviceProof, ...]:
        """There is nothing to prove."""
        return (DeviceProof("cpu", True),)

    def _obstacle(self, device: str) -> str | None:
        return None

    def _open(self, model: Model, device: str, threads: int | None, options: Options) -> FakeSession:
        return FakeSession(*_described(model), device)


class FakeSession(EngineSession):
    """Logits = (blurred brightness - 127.5) / 127.5 at the output's size; class 0 has the negative of it.

    Of more than two classes, those above 1 have a logit of -2 everywhere.
    """

    def __init__(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], precision: Precision, device: str
    ) -> None:
        super().__init__(inputs, outputs, device)
        self._precision = precision

    def _infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        image, spec = feeds[self.inputs[0].name], self.inputs[0]
        gray = image[0].mean(axis=0 if spec.layout is Layout.NCHW else 2)
        return {output.name: _logits(gray, output) for output in self.outputs}

    def _inspect(self) -> Execution:
        int8_layers = int(self._precision is Precision.INT8)
        return Execution("fake", str(self._precision), int8_layers, 1, {"fake": 1}, {str(self._precision): 1})

    def _release(self) -> None:
        """Nothing is held."""


def _described(model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], Precision]:
    """Inputs, outputs and precision by what the manifest says of the model."""
    entry = model.artifact
    if entry and entry.inputs and entry.outputs:
        return entry.inputs, entry.outputs, entry.precision
    shape = (1, 1, _DEFAULT_SIDE, _DEFAULT_SIDE)
    return (TensorSpec("image", shape),), (TensorSpec("logits", shape),), Precision.FP32


def _logits(gray: Array, spec: TensorSpec) -> Array:
    planar = spec.layout is Layout.NCHW
    channels, height, width = spec.shape[1:] if planar else (spec.shape[3], *spec.shape[1:3])
    bright = (_blurred(_sampled(gray, height, width)) - _MID_GRAY) / _MID_GRAY
    if channels == 1:
        maps = bright[None]
    else:
        maps = np.full((channels, height, width), -2.0)
        maps[0], maps[1] = -bright, bright
    maps = maps if planar else maps.transpose(1, 2, 0)
    return np.ascontiguousarray(maps[None], dtype=spec.dtype)


def _sampled(plane: Array, height: int, width: int) -> Array:
    rows = (np.arange(height) * 2 + 1) * plane.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * plane.shape[1] // (2 * width)
    sampled: Array = plane[rows[:, None], columns]
    return sampled


def _blurred(plane: Array) -> Array:
    """Mean of each pixel's 3 x 3 neighbourhood, borders repeated."""
    height, width = plane.shape
    padded = np.pad(plane.astype(np.float64), 1, mode="edge")
    blurred: Array = np.mean([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return blurred
