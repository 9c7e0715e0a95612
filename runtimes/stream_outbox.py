"""Results of a stream on their way to the consumer, and everything that is counted about them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import monotonic

import numpy as np

from edgeseg.frame_source import FrameItem, FrameSource
from edgeseg.runtimes.segmenter import Segmentation
from edgeseg.runtimes.stream_result import Freshness, StreamResult, StreamStats, Switch
from edgeseg.runtimes.stream_schedule import Schedule
from edgeseg.types import Mask


@dataclass(slots=True, eq=False)
class Arrival:
    """A frame that was captured. `answered` once its result was given; `fault` where a segmenter failed on it."""

    item: FrameItem
    captured_s: float
    frozen_s: float = 0.0
    answered: bool = False
    fault: str = ""


class Outbox:
    """Results that wait for the consumer, and counts. Not locked: for who holds the lock of the stream.

    Attributes:
        captured, dropped, overtaken, switches: as in `StreamStats`.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.captured = 0
        self.overtaken = 0
        self.switches: list[Switch] = []
        self._schedule = schedule
        self._results: deque[StreamResult] = deque()
        self._known: tuple[Mask, float] | None = None
        self._dropped = 0
        self._dropped_before = 0
        self._made = dict.fromkeys(Freshness, 0)
        self._unread = self._late = self._frozen = 0

    def __len__(self) -> int:
        return len(self._results)

    @property
    def full(self) -> bool:
        """Whether as many results wait as may."""
        return len(self._results) >= self._schedule.results

    def drop(self, frames: int) -> None:
        """Count frames that will have no result."""
        self._dropped += frames

    def learn(self, arrival: Arrival, mask: Mask) -> None:
        """The newest mask there is, which stale results show."""
        self._known = (mask, arrival.captured_s)

    def fresh(self, arrival: Arrival, link: str, position: int, segmentation: Segmentation) -> None:
        """Give a frame the mask that was learned last, which is its own."""
        self._put(arrival, Freshness.FRESH, link, position, arrival.fault, segmentation)

    def stale(self, arrival: Arrival, link: str, position: int, fault: str) -> None:
        """Give a frame the mask that was learned last, which is of an earlier one, or background."""
        self._put(arrival, Freshness.STALE, link, position, fault, None)

    def pop(self) -> StreamResult | None:
        """The oldest result that waits."""
        return self._results.popleft() if self._results else None

    def stats(self, source: FrameSource) -> StreamStats:
        """All counts, with those of the source."""
        return StreamStats(
            captured=self.captured,
            fresh=self._made[Freshness.FRESH],
            stale=self._made[Freshness.STALE],
            dropped=self._dropped,
            unread=self._unread,
            late=self._late,
            overtaken=self.overtaken,
            damaged=source.damaged,
            lost=source.lost,
            skipped=source.skipped,
            frozen=self._frozen,
            switches=tuple(self.switches),
        )

    def _put(
        self,
        arrival: Arrival,
        freshness: Freshness,
        link: str,
        position: int,
        fault: str,
        segmentation: Segmentation | None,
    ) -> None:
        item, (mask, mask_captured_s) = arrival.item, self._known or (None, None)
        mask = at_size(mask, item.frame.shape)
        now = monotonic()
        latency_s = now - arrival.captured_s
        result = StreamResult(
            index=item.index,
            name=item.name,
            frame=item.frame,
            mask=mask,
            freshness=freshness,
            age_ms=None if mask_captured_s is None else (now - mask_captured_s) * 1e3,
            latency_ms=latency_s * 1e3,
            late=latency_s > self._schedule.deadline_s,
            link=link,
            position=position,
            fault=fault,
            frozen_s=arrival.frozen_s,
            dropped=self._dropped - self._dropped_before,
            time_s=item.time_s,
            pixel_size_mm=item.pixel_size_mm,
            captured_s=arrival.captured_s,
            segmentation=segmentation,
        )
        arrival.answered = True
        self._count(result)
        if self.full and not self._schedule.lossless:
            self._results.popleft()
            self._unread += 1
        self._results.append(result)

    def _count(self, result: StreamResult) -> None:
        self._dropped_before = self._dropped
        self._made[result.freshness] += 1
        self._late += result.late
        self._frozen += result.frozen_s > 0


def at_size(mask: Mask | None, shape: tuple[int, ...]) -> Mask:
    """A mask for a frame of a shape: background where there is none, the nearest pixels where it has another size."""
    height, width = shape[:2]
    if mask is None:
        return np.zeros((height, width), np.uint8)
    if mask.shape == (height, width):
        return mask
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    resized: Mask = mask[rows[:, None], columns]
    return resized
