"""A soak's report: for people as tables, for programs as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edgeseg.commands.json_file import write_json
from edgeseg.commands.latency_histogram import LatencyHistogram
from edgeseg.commands.soak_verdict import Drift, Judgement, drift, passed
from edgeseg.commands.soak_windows import Window
from edgeseg.commands.stream_figures import PERCENTS
from edgeseg.commands.table import Cell, print_table


@dataclass(frozen=True, slots=True)
class SoakReport:
    """What a soak was, what it measured and what is said of it.

    Attributes:
        conditions: what it ran with: bundle, source, rate, chain, hogs and so on.
        windows: with the warm-up, which is the first.
        latency: of all windows but the warm-up.
        judgements: empty where the soak did not come to its end.
        reason: why it did not, "" where it did.
    """

    conditions: dict[str, Any]
    windows: Sequence[Window]
    latency: LatencyHistogram
    judgements: Sequence[Judgement]
    reason: str = ""

    @property
    def measured(self) -> Sequence[Window]:
        """The windows without the warm-up."""
        return self.windows[1:]

    @property
    def passed(self) -> bool:
        """Whether the soak came to its end and kept to every limit."""
        return not self.reason and passed(self.judgements)

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(path, self.document())

    def document(self) -> dict[str, Any]:
        """What `--json` writes; see docs/json.md."""
        return {
            "schema": 1,
            **self.conditions,
            "windows": [asdict(w) for w in self.windows],
            "total": {
                "results": self.latency.count,
                "mean_ms": self.latency.mean_ms,
                **{name: self.latency.percentile(percent) for name, percent in PERCENTS.items()},
                "max_ms": self.latency.max_ms,
            },
            "drift": asdict(drift(self.measured)),
            "limits": [{**asdict(j), "passed": j.passed} for j in self.judgements],
            "passed": self.passed,
            "reason": self.reason or None,
        }

    def print(self) -> None:
        """Tables of the windows and the limits, and the drift in words."""
        _print_windows(self.windows)
        for line in _drift_lines(drift(self.measured)):
            click.echo(line)
        if self.judgements:
            _print_judgements(self.judgements)


def describe_window(window: Window) -> str:
    """One window in one line."""
    parts = [
        f"p50 {_fixed(window.p50_ms, 2)}",
        f"p99 {_fixed(window.p99_ms, 2)}",
        f"max {_fixed(window.max_ms, 1)} ms",
        f"missed {window.missed}",
        f"dropped {window.dropped + window.skipped}",
        f"{_fixed(window.own_mib, 1)} MiB",
        "" if window.temperature_c is None else f"{window.temperature_c:.0f} C",
    ]
    return ", ".join(part for part in parts if part)


def _print_windows(windows: Sequence[Window]) -> None:
    columns: dict[str, list[Cell]] = {
        "": [w.name for w in windows],
        "s": [_fixed(w.seconds, 0) for w in windows],
        "results": [w.results for w in windows],
        "p50 ms": [_fixed(w.p50_ms, 2) for w in windows],
        "p90": [_fixed(w.p90_ms, 2) for w in windows],
        "p99": [_fixed(w.p99_ms, 2) for w in windows],
        "p99.9": [_fixed(w.p999_ms, 2) for w in windows],
        "max": [_fixed(w.max_ms, 1) for w in windows],
        "jitter": [_fixed(w.jitter_ms, 2) for w in windows],
        "stale": [w.stale for w in windows],
        "late": [w.late for w in windows],
        "dropped": [w.dropped + w.skipped for w in windows],
        "own MiB": [_fixed(w.own_mib, 2) for w in windows],
        "PSS": [_fixed(w.pss_mib, 0) for w in windows],
        "RSS": [_fixed(w.rss_mib, 0) for w in windows],
        "files": [w.descriptors for w in windows],
        "C": [_fixed(w.temperature_c, 0) for w in windows],
        "MHz": [_fixed(w.clock_mhz, 0) for w in windows],
        "throttled": [w.throttled for w in windows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    styles = ["dim" if w.index == 0 else "red" if w.missed else None for w in windows]
    print_table("", list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)], styles=styles)


def _print_judgements(judgements: Sequence[Judgement]) -> None:
    words = {True: "passed", False: "FAILED", None: "not measured"}
    rows = [[j.name, _figure(j.asked), _figure(j.measured), j.unit, words[j.passed]] for j in judgements]
    styles = ["red" if j.passed is False else "dim" if j.passed is None else None for j in judgements]
    print_table("", ["limit", "at most", "measured", "unit", "verdict"], rows, styles=styles)


def _drift_lines(moved: Drift) -> list[str]:
    if moved.p50_ms is None:
        return []
    figures = [
        f"p50 {_signed(moved.p50_ms, 2)} ms",
        f"p99 {_signed(moved.p99_ms, 2)} ms",
        f"jitter {_signed(moved.jitter_ms, 2)} ms",
        f"memory {_signed(moved.memory_mib, 2)} MiB ({_signed(moved.memory_kib_per_minute, 1)} KiB a minute)",
        f"files {_signed(moved.descriptors, 0)}",
        *([] if moved.temperature_c is None else [f"{_signed(moved.temperature_c, 0)} C"]),
        *([] if moved.clock_mhz is None else [f"{_signed(moved.clock_mhz, 0)} MHz"]),
    ]
    return [f"last window minus first after the warm-up: {', '.join(figures)}"]


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:+.{digits}f}"


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
