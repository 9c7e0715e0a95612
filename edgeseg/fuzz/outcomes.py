"""What came of a run of many trials: counted, timed, with the first misses told."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

_MOST_TOLD = 5


@dataclass(slots=True)
class Outcomes:
    """One row of the report.

    Attributes:
        part: the run it belongs to.
        what: what was tried.
        trials: how many.
        counts: trials by what came of them.
        misses: the first trials whose outcome may not be, each in one line.
        missed: how many of those there were.
        longest_s: of one trial.
        notes: other figures, by name.
    """

    part: str
    what: str
    trials: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)
    missed: int = 0
    longest_s: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there was at least one trial and no miss."""
        return self.trials > 0 and not self.missed

    def add(self, outcome: str, seconds: float = 0.0, miss: str | None = None) -> None:
        """Count a trial; `miss` says why its outcome may not be."""
        self.trials += 1
        self.counts[outcome] += 1
        self.longest_s = max(self.longest_s, seconds)
        if miss is not None:
            self.miss(miss)

    def miss(self, why: str) -> None:
        """Count a miss."""
        self.missed += 1
        if len(self.misses) < _MOST_TOLD:
            self.misses.append(why)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "counts": dict(self.counts), "passed": self.passed}
