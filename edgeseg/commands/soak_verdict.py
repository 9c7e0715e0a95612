"""What a soak has to keep to: each limit with what was measured, and how the last minute differs from the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.commands.soak_windows import Window


@dataclass(frozen=True, slots=True)
class SoakLimits:
    """What is asked for, at most.

    Attributes:
        p999_ms: 99.9th percentile of the latency, the deadline by default.
        missed: results late or stale.
        dropped: frames that a newer one took the place of, or that were never read.
        memory_mib: growth of memory from the first to the last minute.
        descriptors: growth of open files.
        throttled: samples in which the board slowed down.
        switches: changes of the engine.
        hogs_lost: CPU hogs that ended before the soak did.
    """

    p999_ms: float
    missed: int = 0
    dropped: int = 0
    memory_mib: float = 1.0
    descriptors: int = 0
    throttled: int = 0
    switches: int = 0
    hogs_lost: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """One limit: what was asked for at most and what was measured; None where it could not be measured."""

    name: str
    unit: str
    asked: float
    measured: float | None

    @property
    def passed(self) -> bool | None:
        """Whether it was kept; None where nothing was measured."""
        return None if self.measured is None else self.measured <= self.asked


@dataclass(frozen=True, slots=True)
class Drift:
    """The last minute minus the first one after the warm-up. None where there is one only, or nothing was measured.

    Attributes:
        memory_mib: difference of the medians of `own_mib`, or of the RSS where the kernel does not tell that.
        memory_kib_per_minute: slope of a line through the medians of all minutes, by least squares.
    """

    p50_ms: float | None
    p99_ms: float | None
    jitter_ms: float | None
    memory_mib: float | None
    memory_kib_per_minute: float | None
    descriptors: float | None
    temperature_c: float | None
    clock_mhz: float | None


def drift(windows: Sequence[Window]) -> Drift:
    """How the last of the windows differs from the first; the warm-up must not be among them."""
    memory = _memory(windows)
    return Drift(
        p50_ms=_difference([w.p50_ms for w in windows]),
        p99_ms=_difference([w.p99_ms for w in windows]),
        jitter_ms=_difference([w.jitter_ms for w in windows]),
        memory_mib=_difference(memory),
        memory_kib_per_minute=_slope([w.seconds for w in windows], memory),
        descriptors=_difference([w.descriptors for w in windows]),
        temperature_c=_difference([w.temperature_c for w in windows]),
        clock_mhz=_difference([w.clock_mhz for w in windows]),
    )


def judge(
    windows: Sequence[Window], p999_ms: float | None, hogs_lost: int | None, limits: SoakLimits
) -> list[Judgement]:
    """Hold the windows after the warm-up to their limits.

    Args:
        windows: without the warm-up.
        p999_ms: over all of them together.
        hogs_lost: None where there were to be none.
        limits: what is asked for.
    """
    moved = drift(windows)
    throttled = [w.throttled for w in windows if w.throttled is not None]
    judgements = [
        Judgement("missed deadlines", "results", limits.missed, sum(w.missed for w in windows)),
        Judgement("dropped frames", "frames", limits.dropped, sum(w.dropped + w.skipped for w in windows)),
        Judgement("p99.9 latency", "ms", limits.p999_ms, p999_ms),
        Judgement("memory drift", "MiB", limits.memory_mib, moved.memory_mib),
        Judgement("open files drift", "files", limits.descriptors, moved.descriptors),
        Judgement("throttled", "samples", limits.throttled, sum(throttled) if throttled else None),
        Judgement("engine switches", "", limits.switches, sum(w.switches for w in windows)),
    ]
    if hogs_lost is not None:
        judgements.append(Judgement("CPU hogs lost", "", limits.hogs_lost, hogs_lost))
    return judgements


def passed(judgements: Sequence[Judgement]) -> bool:
    """Whether no limit was exceeded. What could not be measured does not fail, and stands in the verdict as that."""
    return all(j.passed is not False for j in judgements)


def _memory(windows: Sequence[Window]) -> list[float | None]:
    own = [w.own_mib for w in windows]
    return own if None not in own else [w.rss_mib for w in windows]


def _difference(values: Sequence[float | None]) -> float | None:
    if len(values) < 2 or values[0] is None or values[-1] is None:
        return None
    return values[-1] - values[0]


def _slope(seconds: Sequence[float], memory_mib: Sequence[float | None]) -> float | None:
    known = [value for value in memory_mib if value is not None]
    if len(known) < max(2, len(memory_mib)):
        return None
    minutes = np.cumsum(seconds) / 60
    minutes -= minutes.mean()
    return float(minutes @ np.array(known) / (minutes @ minutes) * 1024)
