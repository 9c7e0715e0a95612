"""What `edgeseg stream` says of itself while it runs and at its end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgeseg.commands.latency_histogram import LatencyHistogram
from edgeseg.measure import Measurement
from edgeseg.runtimes.stream_result import StreamResult, StreamStats

_RECENT_S = 5.0
_RECENT = 1024  # results that the moving figures are made of, at most
PERCENTS = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}
COUNTS = ("captured", "fresh", "stale", "late", "dropped", "skipped", "unread", "damaged", "lost", "frozen")
_NAMES = {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99", "p999_ms": "p99.9", "max_ms": "max"}
_REASONS = {
    "end": "the end of the source",
    "frames": "--frames",
    "seconds": "--seconds",
    "interrupted": "a signal",
    "error": "an error",
}


class StreamFigures:
    """Speed and latency of a stream: of its last seconds, and of all of it. One thread records, others may look.

    Attributes:
        latency: of all results.
        last: the newest result.
        last_s: when it was recorded.
    """

    def __init__(self, now_s: float) -> None:
        self.latency = LatencyHistogram()
        self.last: StreamResult | None = None
        self.last_s = now_s
        self._start_s = now_s
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)

    def record(self, result: StreamResult, now_s: float) -> None:
        """Take in a result that was taken at `now_s`."""
        self.latency.record(result.latency_ms)
        self._recent.append((now_s, result.latency_ms))
        self.last, self.last_s = result, now_s

    def seconds(self, now_s: float) -> float:
        """Since the start."""
        return now_s - self._start_s

    def rate_hz(self, now_s: float) -> float | None:
        """Results a second in the last five; None where there were fewer than two."""
        times = [at for at, _ in self._of_late(now_s)]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None

    def recent_ms(self, now_s: float, percent: float) -> float | None:
        """A percentile (nearest rank) of the latency in the last five seconds; None without results."""
        found = sorted(latency for _, latency in self._of_late(now_s))
        return found[max(0, math.ceil(len(found) * percent / 100) - 1)] if found else None

    def _of_late(self, now_s: float) -> list[tuple[float, float]]:
        return [entry for entry in self._recent.copy() if entry[0] >= now_s - _RECENT_S]


def result_record(result: StreamResult, found: Sequence[Measurement]) -> dict[str, Any]:
    """The JSON line of a result; see docs/json.md."""
    return {
        "kind": "result",
        "frame": result.name,
        "index": result.index,
        "time_s": _rounded(result.time_s),
        "freshness": result.freshness,
        "age_ms": _rounded(result.age_ms),
        "latency_ms": _rounded(result.latency_ms),
        "late": result.late,
        "dropped": result.dropped,
        "link": result.link,
        "position": result.position,
        "fault": result.fault or None,
        "frozen_s": _rounded(result.frozen_s),
        "measurements": [asdict(measurement) for measurement in found],
    }


def summary_record(figures: StreamFigures, stats: StreamStats, reason: str, error: Exception | None) -> dict[str, Any]:
    """The last JSON line: counts and latency of the whole stream; what was not measured is None."""
    latency, seconds = figures.latency, figures.seconds(figures.last_s)
    return {
        "kind": "summary",
        "reason": reason,
        "error": None if error is None else str(error),
        "seconds": seconds,
        "fps": latency.count / seconds if seconds > 0 and latency.count else None,
        **{name: latency.percentile(percent) for name, percent in PERCENTS.items()},
        "max_ms": latency.max_ms,
        **asdict(stats),
    }


def closing_lines(summary: dict[str, Any], deadline_ms: float | None) -> list[str]:
    """What a summary says to a person."""
    if not summary["captured"]:
        return ["no frame came"]
    results = summary["fresh"] + summary["stale"]
    speed = "" if summary["fps"] is None else f" ({summary['fps']:.1f} a second)"
    lines = [f"{_results(results)} in {summary['seconds']:.1f} s{speed}, ended by {_REASONS[summary['reason']]}"]
    if summary["max_ms"] is not None:
        figures = " ".join(f"{words} {summary[name]:.2f}" for name, words in _NAMES.items())
        lines.append(f"latency ms: {figures}" + ("" if deadline_ms is None else f", deadline {deadline_ms:.2f}"))
    lines.append(", ".join(f"{name} {summary[name]}" for name in COUNTS))
    if summary["written"] is not None:
        left_out = f", {summary['left_out']} left out to stay in time" if summary["left_out"] else ""
        lines.append(f"{_results(summary['written'])} written{left_out}")
    for switch in summary["switches"]:
        to = switch["target"] or "nothing"
        lines.append(f"frame {switch['index']}: {switch['source']} gave way to {to}: {switch['reason']}")
    return lines


def _results(count: int) -> str:
    return "1 result" if count == 1 else f"{count} results"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
