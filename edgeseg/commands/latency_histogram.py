"""Percentiles of any number of latencies in a few kilobytes: buckets whose edges grow by one percent each."""

from __future__ import annotations

import math
from array import array

RESOLUTION = 0.01  # of a bucket; a percentile is its middle, so that it is within half of that
_LOWEST_MS, _HIGHEST_MS = 1e-3, 1e6
_STEP = math.log1p(RESOLUTION)
_BUCKETS = math.ceil(math.log(_HIGHEST_MS / _LOWEST_MS) / _STEP) + 1


class LatencyHistogram:
    """Counts of latencies in buckets of 1 % width, from 1 us to 1000 s. Its size never changes.

    Attributes:
        count: latencies recorded.
        min_ms, max_ms: the smallest and the largest, exactly; None before the first one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.min_ms: float | None = None
        self.max_ms: float | None = None
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self._sum_ms = 0.0

    @property
    def mean_ms(self) -> float | None:
        """Exactly; None before the first one."""
        return self._sum_ms / self.count if self.count else None

    def record(self, latency_ms: float) -> None:
        """Count one latency; what is not a number is left out."""
        if math.isnan(latency_ms):
            return
        self.count += 1
        self._sum_ms += latency_ms
        self.min_ms = latency_ms if self.min_ms is None else min(self.min_ms, latency_ms)
        self.max_ms = latency_ms if self.max_ms is None else max(self.max_ms, latency_ms)
        self._counts[_bucket(latency_ms)] += 1

    def percentile(self, percent: float) -> float | None:
        """The latency that `percent` of all do not exceed (nearest rank), to 0.5 %; None before the first one."""
        if self.min_ms is None or self.max_ms is None:
            return None
        # Rounded first: 99.9 % of 20 000 is a hair more than 19 980 in binary.
        rank, seen = max(1, math.ceil(round(self.count * percent / 100, 6))), 0
        if rank >= self.count:
            return self.max_ms
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(max(_middle(index), self.min_ms), self.max_ms)
        raise AssertionError("the counts of a histogram add up to its count")


def _bucket(latency_ms: float) -> int:
    if latency_ms <= _LOWEST_MS:
        return 0
    return min(int(math.log(latency_ms / _LOWEST_MS) / _STEP), _BUCKETS - 1)


def _middle(index: int) -> float:
    return _LOWEST_MS * math.exp((index + 0.5) * _STEP)
