"""How long a network takes as it will be deployed: its int8 artifact in a named engine, one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
from torch import nn

from edgeseg.converters.macs import macs
from edgeseg.converters.plan import plan
from edgeseg.converters.recipe import Recipe
from edgeseg.converters.source import Normalised, Source
from edgeseg.converters.step import Workspace
from edgeseg.parity import RunLogits, nchw_runner
from edgeseg.plugins import FORMAT_OF
from edgeseg.transport import compressed_size
from edgeseg.types import Array, Format, Precision, Session

_ROUNDS = 20
_REPEATS = 5
_CALIBRATION = 8


class OpenSession(Protocol):
    """Loads a model file on the CPU with the runtime of its format; returns the runtime's name and the session."""

    def __call__(self, kind: Format, path: Path, threads: int | None = None) -> tuple[str, Session]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Proof:
    """What a compression gained, both networks as int8 artifacts of one engine.

    Attributes:
        engine: where the latencies were measured, in turns, one thread.
        macs_source, macs: multiply-accumulates of one frame.
        latency_source_ms, latency_ms: medians.
        transport_source_bytes, transport_bytes: of the artifact in the compressed form of a bundle.
    """

    engine: str
    macs_source: int
    macs: int
    latency_source_ms: float
    latency_ms: float
    transport_source_bytes: int
    transport_bytes: int

    @property
    def faster(self) -> bool:
        """Fewer multiply-accumulates and less time: what distillation and structured pruning are for."""
        return self.macs < self.macs_source and self.latency_ms < self.latency_source_ms

    @property
    def lighter(self) -> bool:
        """A smaller download: all that zeros are for."""
        return self.transport_bytes < self.transport_source_bytes

    def __str__(self) -> str:
        return (
            f"{self.macs / 1e6:.1f} against {self.macs_source / 1e6:.1f} MMACs, {self.latency_ms:.3f} against "
            f"{self.latency_source_ms:.3f} ms as int8 in {self.engine}, one thread, "
            f"{self.transport_bytes / 1e6:.3f} against {self.transport_source_bytes / 1e6:.3f} MB to download"
        )


class Stopwatch:
    """Measures networks in one engine.

    Args:
        source: gives preprocessing and classes.
        calibration: raw pixels [1, C, H, W] float32; a few set the int8 ranges.
        engine: a runtime's name.
        recipe: how int8 is made.
        open_session: loads an artifact.
    """

    def __init__(
        self, source: Source, calibration: Sequence[Array], engine: str, recipe: Recipe, open_session: OpenSession
    ) -> None:
        self.source, self.calibration, self.engine = source, calibration[:_CALIBRATION], engine
        self.recipe, self.open_session = recipe, open_session

    def latency_ms(self, module: nn.Module) -> float:
        """Median of one network on normalised input."""
        return self._measure([module])[0][0]

    def prove(self, compressed: nn.Module) -> Proof:
        """Compare a network with the source, in turns."""
        dense = self.source.network.module
        assert isinstance(dense, nn.Module)
        (ours, light), (theirs, heavy) = self._measure([compressed, dense])
        example = self.source.normalised_example
        return Proof(self.engine, macs(dense, example), macs(compressed, example), theirs, ours, heavy, light)

    def _measure(self, modules: Sequence[nn.Module]) -> list[tuple[float, int]]:
        """Median milliseconds and compressed bytes of each."""
        with ExitStack() as stack:
            opened = [self._open(module, stack) for module in modules]
            runs = [run for run, _ in opened]
            times: list[list[float]] = [[] for _ in runs]
            for round_number in range(_ROUNDS):
                pixels = self.calibration[round_number % len(self.calibration)]
                for run, seconds in zip(runs, times, strict=True):
                    run(pixels)
                    for _ in range(_REPEATS):
                        start = perf_counter()
                        run(pixels)
                        seconds.append(perf_counter() - start)
        return [(float(np.median(seconds)) * 1e3, size) for seconds, (_, size) in zip(times, opened, strict=True)]

    def _open(self, module: nn.Module, stack: ExitStack) -> tuple[RunLogits, int]:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeseg-")))
        work = Workspace(with_module(self.source, module), folder, self.calibration)
        kind = FORMAT_OF[self.engine]
        for step in plan([kind], [Precision.INT8], self.recipe):
            files = step.apply(work)
            work.made[step.makes] = files[0]
        session = stack.enter_context(self.open_session(kind, work.need((kind, Precision.INT8)), 1)[1])
        run = nchw_runner(session.run, session.inputs, session.outputs)
        return run, compressed_size(list(files), sum(f.stat().st_size for f in files))


def with_module(source: Source, module: nn.Module) -> Source:
    """The source with another network, on normalised input, in its place."""
    return replace(source, network=Normalised(module.eval(), source.preprocess).train(False))
