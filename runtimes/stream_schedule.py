"""The times a stream goes by: deadlines, when an engine hangs, and how early the watchdog has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeseg.runtimes.stream_result import StreamOptions

_PERIOD_WHERE_UNKNOWN_S = 1 / 30
_LEAST_MARGIN_S, _FIRST_MARGIN_S = 0.002, 0.005
_LARGEST_MARGIN = 0.25  # of the deadline
_FORGETTING = 0.99
_LOSSLESS_NAP_S = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the options and the source come to.

    Attributes:
        deadline_s: from a frame's capture to its result; what takes longer is late. Infinite where there is none.
        hang_s: after how long without an answer an engine is given up; None for the lane's own figure.
        lossless: whether frames and results wait for room; stale results are not given then.
        queue, results: how many may wait.
    """

    deadline_s: float
    hang_s: float | None
    lossless: bool
    queue: int
    results: int

    @classmethod
    def of(cls, options: StreamOptions, rate_hz: float | None, live: bool) -> Schedule:
        """The times of a source with a rate (None where unknown)."""
        lossless = not live if options.lossless is None else options.lossless
        if options.deadline_ms is not None:
            deadline_s = options.deadline_ms / 1e3
        else:
            deadline_s = math.inf if lossless else 1 / rate_hz if rate_hz else _PERIOD_WHERE_UNKNOWN_S
        hang_s = None if options.hang_ms is None else options.hang_ms / 1e3
        return cls(deadline_s, hang_s, lossless, options.queue, options.results)

    @property
    def stale_s(self) -> float:
        """From a frame's capture to the stale result that it gets where there is no better one; infinite for never."""
        return math.inf if self.lossless else self.deadline_s

    def nap_s(self, margin: Margin) -> float:
        """For how long the watchdog may sleep while frames come: none of them is due earlier."""
        return _LOSSLESS_NAP_S if self.lossless else self.deadline_s - margin.of(self.deadline_s)


class Margin:
    """How long before a deadline the watchdog has to wake up: twice the most that it overslept lately."""

    def __init__(self) -> None:
        self._seconds = _FIRST_MARGIN_S

    def overslept(self, seconds: float) -> None:
        """Remember by how much it woke up late, 0 for not at all."""
        self._seconds = max(2 * seconds, self._seconds * _FORGETTING, _LEAST_MARGIN_S)

    def of(self, deadline_s: float) -> float:
        """Of a deadline, at most a quarter of it."""
        return min(self._seconds, _LARGEST_MARGIN * deadline_s)
