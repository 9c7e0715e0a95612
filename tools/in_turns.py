"""Calls that are timed in turns: whatever else the machine does hits all that is compared alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

WARM_UPS = 10

Turn = Callable[[int], Sequence[float]]  # makes so many calls, gives the seconds of each


@dataclass(frozen=True, slots=True)
class Times:
    """p50 and p99 of each turn, in us."""

    p50: list[float]
    p99: list[float]

    @property
    def typical(self) -> float:
        """The median p50."""
        return median(self.p50)


def turn(call: Callable[[], object]) -> Turn:
    """Turns of a call of this process; each begins with calls that do not count."""

    def times(count: int) -> list[float]:
        for _ in range(WARM_UPS):
            call()
        found = []
        for _ in range(count):
            start = perf_counter()
            call()
            found.append(perf_counter() - start)
        return found

    return times


def in_turns(turns: Mapping[str, Turn], rounds: int, count: int) -> dict[str, Times]:
    """Run all of them, again and again, every other round backwards."""
    times = {name: Times([], []) for name in turns}
    for number in range(rounds):
        for name in list(turns) if number % 2 else reversed(list(turns)):
            found = np.array(turns[name](count)) * 1e6
            times[name].p50.append(float(np.percentile(found, 50)))
            times[name].p99.append(float(np.percentile(found, 99)))
    return times


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """By how much ours are larger: the median over the rounds."""
    return median(a - b for a, b in zip(ours, theirs, strict=True))
