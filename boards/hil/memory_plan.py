"""How much of a bundle a board can take at once: one engine after the other where memory is short.

The needs are estimates from measurements (docs/hil.md): a fixed part for Python and each engine, and a part that grows
with the artifact and its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from edgeseg.errors import BoardUnfit
from edgeseg.plugins import ENGINE_OF
from edgeseg.types import Artifact, Bundle

_MB = 10**6
_BASE_MB = 75.0
# Of a process that has imported the engine and loaded a small artifact, beyond the base.
_ENGINE_MB = {"litert": 15.0, "onnxruntime": 30.0, "openvino": 65.0}
_TIMES_SIZE = 3.0  # the file, what the engine unpacks it to, and one copy for the moment between
_CHANNELS = 64  # of float32 at the input's size: what is alive at once in the first and last layers of a U-Net
_RESERVE_MB = 12.0  # the runner's scripts and the shell


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
        how = "all at once" if len(self.groups) == 1 else "one after the other"
        engines = ", ".join(engine for group in self.groups for engine in group)
        limit = "" if self.limit_mb is None else f" of {self.limit_mb:.0f} MB"
        return f"{engines} {how}, about {self.need_mb:.0f}{limit}"


def plan_memory(bundle: Bundle, name: str, engines: Sequence[str], limit_bytes: int | None, board: str) -> MemoryPlan:
    """The plan that fits. Raises BoardUnfit where not even one engine does."""
    together = tuple(engines)
    limit_mb = None if limit_bytes is None else limit_bytes / _MB - _RESERVE_MB
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


def _need_mb(bundle: Bundle, engines: Iterable[str]) -> float:
    """Of a bench: all sessions at once, then a child process that loads one of them anew."""
    chosen = set(engines)
    sessions = {a.name: _artifact_mb(a) for a in bundle.artifacts if ENGINE_OF[a.format] in chosen}
    child = max(
        (_ENGINE_MB[ENGINE_OF[a.format]] + sessions[a.name] for a in bundle.artifacts if a.name in sessions),
        default=0.0,
    )
    return _BASE_MB + sum(_ENGINE_MB[engine] for engine in chosen) + sum(sessions.values()) + child + _BASE_MB / 2


def _artifact_mb(artifact: Artifact) -> float:
    pixels = sum(prod(max(1, side) for side in spec.shape) for spec in artifact.inputs)
    return (_TIMES_SIZE * artifact.size_bytes + 4 * _CHANNELS * pixels) / _MB
