"""What a soak measures, window by window, in memory that is all there before the first frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from statistics import median
from typing import Any

import numpy as np

from edgeseg.boards.telemetry import Reading
from edgeseg.commands.latency_histogram import LatencyHistogram
from edgeseg.commands.process_figures import ProcessFigures
from edgeseg.runtimes.stream_result import Freshness, StreamResult, StreamStats

_COUNTS = ("fresh", "stale", "late", "dropped", "skipped", "unread", "damaged", "lost")


@dataclass(frozen=True, slots=True)
class Window:
    """One minute of a soak, or less where the whole is short. What was not measured is None.

    Attributes:
        index: 0 is the warm-up, which counts for nothing.
        seconds: that it took.
        missed: results that were late or stale.
        fresh, stale, late, dropped, skipped, unread, damaged, lost, switches: as `StreamStats`, of this window.
        p50_ms, p90_ms, p99_ms, p999_ms, max_ms: of the latency from capture to result.
        jitter_ms: 99th percentile of the difference between the interval of two results and the period.
        own_mib, pss_mib, rss_mib: as `ProcessFigures`, median of the samples; of this process and its engines', without
            CPU hogs.
        descriptors: most open files in a sample.
        temperature_c, clock_mhz: highest temperature and lowest clock in a sample.
        throttled: samples in which the board said that it slowed down.
    """

    index: int
    seconds: float
    missed: int
    fresh: int
    stale: int
    late: int
    dropped: int
    skipped: int
    unread: int
    damaged: int
    lost: int
    switches: int
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    max_ms: float | None = None
    jitter_ms: float | None = None
    own_mib: float | None = None
    pss_mib: float | None = None
    rss_mib: float | None = None
    descriptors: int | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    throttled: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"window {self.index}" if self.index else "warm-up"

    @property
    def results(self) -> int:
        """Fresh and stale ones."""
        return self.fresh + self.stale


class Windows:
    """A list of windows of which every number has its place from the start: a soak of days needs no more memory."""

    def __init__(self, capacity: int) -> None:
        self._rows = np.full((capacity, len(fields(Window))), math.nan)
        self._whole = [str(f.type).startswith("int") for f in fields(Window)]
        self._count = 0

    def append(self, window: Window) -> None:
        """Keep a window; of more than there is room for the last one stays."""
        self._count = min(self._count + 1, len(self._rows))
        self._rows[self._count - 1] = [math.nan if value is None else value for value in astuple(window)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Window:
        values = self._rows[: self._count][index].tolist()
        found = (
            None if math.isnan(v) else int(v) if whole else v for v, whole in zip(values, self._whole, strict=True)
        )
        return Window(*found)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))


class WindowRecorder:
    """Collects one window after the other."""

    def __init__(self, period_ms: float) -> None:
        self._period_ms = period_ms
        self._index = 0
        self._before = StreamStats()
        self._last_s: float | None = None
        self._clear(0.0)

    def _clear(self, start_s: float) -> None:
        self._start_s = start_s
        self._missed = 0
        self._latency, self._jitter = LatencyHistogram(), LatencyHistogram()
        self._processes: list[ProcessFigures] = []
        self._readings: list[Reading] = []

    def begin(self, now_s: float) -> None:
        """Begin the first window."""
        self._clear(now_s)

    def record(self, result: StreamResult, now_s: float) -> None:
        """Count a result that was taken at `now_s`."""
        self._latency.record(result.latency_ms)
        self._missed += result.late or result.freshness is Freshness.STALE
        if self._last_s is not None:
            self._jitter.record(abs((now_s - self._last_s) * 1e3 - self._period_ms))
        self._last_s = now_s

    def sample(self, processes: ProcessFigures, reading: Reading) -> None:
        """Take in what was read of processes and board; a few times a window."""
        self._processes.append(processes)
        self._readings.append(reading)

    def close(self, stats: StreamStats, now_s: float) -> Window:
        """The window until now; the next one begins."""
        counts = {name: getattr(stats, name) - getattr(self._before, name) for name in _COUNTS}
        window = Window(
            index=self._index,
            seconds=now_s - self._start_s,
            missed=self._missed,
            switches=len(stats.switches) - len(self._before.switches),
            **counts,
            p50_ms=self._latency.percentile(50),
            p90_ms=self._latency.percentile(90),
            p99_ms=self._latency.percentile(99),
            p999_ms=self._latency.percentile(99.9),
            max_ms=self._latency.max_ms,
            jitter_ms=self._jitter.percentile(99),
            own_mib=_median([p.own_mib for p in self._processes]),
            pss_mib=_median([p.pss_mib for p in self._processes]),
            rss_mib=_median([p.rss_mib for p in self._processes]),
            descriptors=_extreme(max, [p.descriptors for p in self._processes]),
            temperature_c=_extreme(max, [r.temperature_c for r in self._readings]),
            clock_mhz=_extreme(min, [r.clock_mhz for r in self._readings]),
            throttled=_count([r.throttled for r in self._readings]),
        )
        self._index += 1
        self._before = stats
        self._clear(now_s)
        return window


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _extreme(pick: Callable[[list[Any]], Any], values: Sequence[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return pick(known) if known else None


def _count(values: Sequence[bool | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
