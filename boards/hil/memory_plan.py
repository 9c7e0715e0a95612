"""How much of a bundle a board can take at once: one engine after the other where memory is short.

The needs are estimates from the least control group in which each command still ran (docs/hil.md). Pages of files do
not count, the kernel takes them back: the resident set of the same commands is twice as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from edgeseg.errors import BoardUnfit
from edgeseg.plugins import ENGINE_OF
from edgeseg.types import Artifact, Bundle

_MB = 10**6
# Of `edgeseg verify`, which isolates engines: itself, and a process for each artifact.
_BASE_MB = 44.0
_ENGINE_MB = {"litert": 23.0, "onnxruntime": 34.0, "openvino": 50.0}
# Of each of those, for every MB of the artifact.
_TIMES_SIZE = {"litert": 5.0, "onnxruntime": 11.0, "openvino": 8.0}
# Measured with inputs of 256x256; a larger one holds about 64 channels of float32 more at its size.
_PIXELS, _BYTES_PER_PIXEL = 256 * 256, 4 * 64
_MARGIN = 1.15


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Which engines run in one command.

    Attributes:
        groups: of engines; each gets commands of its own.
        need_mb: of the hungriest group, 10^6 bytes, by estimate.
        limit_mb: what the board allows; None where it does not tell.
        left_out: engines that do not fit, with the reason.
    """

    groups: tuple[tuple[str, ...], ...]
    need_mb: float
    limit_mb: float | None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """For people."""
        engines = [engine for group in self.groups for engine in group]
        how = "" if len(engines) == 1 else " all at once" if len(self.groups) == 1 else " one after the other"
        limit = "" if self.limit_mb is None else f" of {self.limit_mb:.0f} MB"
        return f"{', '.join(engines)}{how}, about {self.need_mb:.0f} MB{limit}"


def plan_memory(bundle: Bundle, name: str, engines: Sequence[str], limit_bytes: int | None, board: str) -> MemoryPlan:
    """The plan that fits. Raises BoardUnfit where not even one engine does."""
    together = tuple(engines)
    limit_mb = None if limit_bytes is None else limit_bytes / _MB
    need_mb = _need_mb(bundle, together)
    if limit_mb is None or need_mb <= limit_mb:
        return MemoryPlan((together,), need_mb, limit_mb)
    alone = {engine: _need_mb(bundle, (engine,)) for engine in engines}
    fitting = [engine for engine in engines if alone[engine] <= limit_mb]
    left_out = {
        engine: f"{engine} needs about {need:.0f} MB, {board} has {limit_mb:.0f} MB for it"
        for engine, need in alone.items()
        if engine not in fitting
    }
    if not fitting:
        raise BoardUnfit(f"{name} does not fit into the memory of {board}: {'; '.join(left_out.values())}")
    return MemoryPlan(tuple((e,) for e in fitting), max(alone[e] for e in fitting), limit_mb, left_out)


def _need_mb(bundle: Bundle, engines: Sequence[str]) -> float:
    """Of the hungriest command of a run."""
    return _MARGIN * (_BASE_MB + sum(_artifact_mb(a) for a in bundle.artifacts if ENGINE_OF[a.format] in engines))


def _artifact_mb(artifact: Artifact) -> float:
    engine = ENGINE_OF[artifact.format]
    pixels = sum(prod(max(1, side) for side in spec.shape) for spec in artifact.inputs)
    more = _BYTES_PER_PIXEL * max(0, pixels - _PIXELS) / _MB
    return _ENGINE_MB[engine] + _TIMES_SIZE[engine] * artifact.size_bytes / _MB + more
