"""Calls that are timed in short turns: whatever else the machine does hits all that is compared alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np

WARM_UPS = 3
TURN_S = 0.03
FEWEST = 5  # calls a turn

Turn = Callable[[int], Sequence[float]]  # makes so many calls, gives the seconds of each


@dataclass(frozen=True, slots=True)
class Times:
    """What the calls of one thing took, in us, turn by turn."""

    turns: list[Sequence[float]] = field(default_factory=list)

    @property
    def p50(self) -> list[float]:
        """Of each turn."""
        return [median(turn) for turn in self.turns]

    @property
    def typical(self) -> float:
        """The median turn's p50."""
        return median(self.p50)

    @property
    def p99(self) -> float:
        """Of all calls."""
        return float(np.percentile(np.concatenate(self.turns), 99))


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


def in_turns(turns: Mapping[str, Turn], calls: int) -> dict[str, Times]:
    """So many calls of each at least, in turns of some hundredths of a second, every other round backwards."""
    slowest = max(min(run(FEWEST)) for run in turns.values())
    count = max(FEWEST, min(calls, round(TURN_S / slowest)))
    times = {name: Times() for name in turns}
    for number in range(-(-calls // count)):
        for name in list(turns) if number % 2 else reversed(list(turns)):
            times[name].turns.append([seconds * 1e6 for seconds in turns[name](count)])
    return times


def difference(ours: Times, theirs: Times) -> float:
    """By how many us the p50 of ours is larger: the median over the rounds."""
    return median(a - b for a, b in zip(ours.p50, theirs.p50, strict=True))
