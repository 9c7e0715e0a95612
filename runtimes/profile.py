"""What each layer of a loaded artifact costs, by the engine's own clock, and how much of the core's peak it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

from edgeseg import plugins
from edgeseg.errors import InferenceError, MissingDependency
from edgeseg.evidence import LayerTime
from edgeseg.types import Array, Precision, Session

_INT8, _FP32 = Precision.INT8, Precision.FP32
_ROUNDS, _RUNS = 3, 7


@runtime_checkable
class Profiling(Protocol):
    """A session whose engine has a clock for each layer."""

    def profile(self, feeds: Mapping[str, Array], runs: int) -> tuple[LayerTime, ...]:
        """Time every executed layer, in order, on an instance of the model of its own.

        Args:
            feeds: as for `run`.
            runs: how many runs the medians are of.

        Raises:
            BadInput: feeds that do not fit.
            InferenceError: the engine has no times to give, or the session is closed.
        """
        ...


@runtime_checkable
class WideLayers(Protocol):
    """A runtime that can build convolutions wide enough to keep every multiplier of a core busy."""

    def wide_layers(self, int8: bool, threads: int | None, runs: int) -> tuple[LayerTime, ...]:
        """Times of the layers of such models on the CPU. Raises InferenceError where the engine fails."""
        ...


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that this machine's core was seen to do, in 10^9 multiply-accumulates a second.

    Attributes:
        int8_gmacs, fp32_gmacs: of the best wide convolution whose kernel really ran in that precision.
        runtime: the engine that reached the int8 figure.
        threads: CPU threads it was measured with; None is the engine's choice.
    """

    int8_gmacs: float
    fp32_gmacs: float
    runtime: str
    threads: int | None

    def of(self, precision: str) -> float | None:
        """The peak that a layer of this precision is held against; None for others than int8 and fp32."""
        return {str(_INT8): self.int8_gmacs, str(_FP32): self.fp32_gmacs}.get(precision)

    def share_of(self, layers: Sequence[LayerTime]) -> float | None:
        """The time that the multiply-accumulates of these layers take at the peak, over the time they took; 0..1.

        Layers without any count with their time. None where there are no multiply-accumulates, or no peak for them.
        """
        working = [layer for layer in layers if layer.macs]
        total_us = sum(layer.time_us for layer in layers)
        peaks = [self.of(layer.precision) for layer in working]
        if not working or not total_us or None in peaks:
            return None
        return sum((a.macs or 0) / 1e3 / (p or 1.0) for a, p in zip(working, peaks, strict=True)) / total_us


def profile(session: Session, feeds: Mapping[str, Array], runs: int) -> tuple[LayerTime, ...]:
    """Time every executed layer of a session; see `Profiling.profile`."""
    if not isinstance(session, Profiling):
        raise InferenceError(f"{type(session).__name__} has no times per layer: choose openvino or onnxruntime")
    return session.profile(feeds, runs)


@cache
def core_peak(threads: int | None) -> Peak | None:
    """Measure the CPU's peak, once per process; about two seconds.

    A few models of wide 3x3 convolutions, small enough for the core's own cache, run in int8 and in fp32 in every
    engine that can build them, in turns, so that a moment of other load does not lower the peak. The best median of a
    layer counts, by the same clock that times an artifact's layers: it is what real kernels reach on this machine now,
    not a figure of a data sheet.

    Args:
        threads: CPU threads; None leaves it to the engine.

    Returns:
        None where no engine is installed that can build such models.
    """
    int8: dict[str, float] = {}
    fp32: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for name in plugins.ENGINES:
            runtime = plugins.runtime(name)
            if not isinstance(runtime, WideLayers):
                continue
            with suppress(MissingDependency):
                int8[name] = max(int8.get(name, 0.0), _best(runtime, _INT8, threads))
                fp32[name] = max(fp32.get(name, 0.0), _best(runtime, _FP32, threads))
    if not int8:
        return None
    best = max(int8, key=int8.__getitem__)
    return Peak(int8[best], max(fp32.values()), best, threads)


def _best(runtime: WideLayers, precision: Precision, threads: int | None) -> float:
    layers = runtime.wide_layers(precision is _INT8, threads, _RUNS)
    return max((layer.gmacs_per_s or 0.0 for layer in layers if layer.precision == precision), default=0.0)
