"""Counts of what the device did, for whoever asks later: a file, the log, `systemctl status`."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import numpy as np
from journal import event

from edgeseg import EdgesegError, StreamResult
from edgeseg.overlay import draw, write_image
from edgeseg.runtimes.stream_result import Freshness, StreamStats
from edgeseg.types import Frame

EVERY_S = 1.0


@dataclass(slots=True)
class Counts:
    """Since the start of the process, over all streams."""

    results: int = 0
    fresh: int = 0
    stale: int = 0
    late: int = 0
    dropped: int = 0
    frozen: int = 0
    damaged: int = 0
    switches: int = 0
    source_lost: int = 0
    reloads: int = 0
    streams: int = 0
    worst_latency_ms: float = 0.0
    longest_gap_ms: float = 0.0
    link: str = ""


class Health:
    """Counts, and where they are kept.

    Args:
        report: the file of the counts, "" for none.
        picture: the file of the newest picture, "" for none.
    """

    def __init__(self, report: str = "", picture: str = "") -> None:
        self.counts = Counts()
        self._report = Path(report) if report else None
        self._picture = Path(picture) if picture else None
        self._written_s = monotonic()
        self._before_s: float | None = None

    def count(self, result: StreamResult) -> None:
        """Add a result."""
        counts = self.counts
        counts.results += 1
        counts.fresh += result.freshness is Freshness.FRESH
        counts.stale += result.freshness is Freshness.STALE
        counts.late += result.late
        counts.frozen += result.frozen_s > 0
        counts.worst_latency_ms = max(counts.worst_latency_ms, round(result.latency_ms, 3))
        now = monotonic()
        if self._before_s is not None:
            counts.longest_gap_ms = max(counts.longest_gap_ms, round((now - self._before_s) * 1e3, 3))
        self._before_s = now
        counts.link = result.link

    def add(self, stats: StreamStats) -> None:
        """Add what only the stream knows, when it has ended."""
        self.counts.streams += 1
        self.counts.dropped += stats.dropped
        self.counts.switches += len(stats.switches)

    def due(self) -> bool:
        """Whether it is time to write again."""
        return monotonic() - self._written_s >= EVERY_S

    def write(self, result: StreamResult | None = None, *, hidden: bool = False) -> None:
        """Write the counts, and the picture with its outline unless that is to be hidden."""
        self._written_s = monotonic()
        try:
            if self._report:
                _replace(self._report, json.dumps(asdict(self.counts), indent=1) + "\n")
            if self._picture and result is not None:
                write_image(self._picture, _drawn(result, hidden))
        except (OSError, EdgesegError) as error:
            # A full disk is no reason to stop segmenting.
            event("health not written", logging.ERROR, reason=str(error))


def _drawn(result: StreamResult, hidden: bool) -> Frame:
    if hidden:
        return draw(result.frame, np.zeros_like(result.mask), stale="no outline: it would not be of this picture")
    stale = None if result.freshness is Freshness.FRESH else f"{result.age_ms:.0f} ms old"
    return draw(result.frame, result.mask, text=f"{result.name}  {result.latency_ms:.0f} ms", stale=stale)


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
