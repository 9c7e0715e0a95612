"""Any source at a fixed rate: a recorded clip as the probe would have delivered it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from edgeseg.errors import BadInput
from edgeseg.frame_source import Counts, FrameItem, FrameSource

_HIGHEST_RATE_HZ = 10_000.0


def paced(source: FrameSource, rate_hz: float, loop: bool = False) -> FrameSource:
    """Frames of `source`, each at its due time: the first one at once, then one every `1 / rate_hz` seconds.

    Due times are those of one schedule on `time.monotonic()`, so that they do not drift; `captured_s` of a frame is its
    due time. The next frame is decoded before it is waited for. A reader that comes late gets the next frame at once,
    with the newest due time that has passed; due times before it are counted in `skipped` and nothing makes up for
    them, so that no burst follows a stall. No frame of a file is left out. Of a live source the frame that is there at
    the due time is given, with its own `captured_s`.

    Args:
        source: closed with the source returned.
        rate_hz: frames a second, above 0 and at most 10 000.
        loop: start over at the end, for ever; indices go on, names of round N end in `-rN`.

    Raises:
        BadInput: a rate out of range, or `loop` of a live source, which has no start.
    """
    if not (0 < rate_hz <= _HIGHEST_RATE_HZ and math.isfinite(rate_hz)):
        raise BadInput(f"the rate is {rate_hz} Hz, expected more than 0 and at most {_HIGHEST_RATE_HZ:.0f}")
    if loop and source.live:
        raise BadInput(f"{source.name} cannot be read again from its start, expected a file or a folder to loop over")
    replay = _Replay(source, 1 / rate_hz, loop)
    return FrameSource(
        source.path or source.name,
        source.kind,
        replay.items(),
        length=None if loop else source.length,
        rate_hz=rate_hz,
        live=True,
        counts=replay.counts,
        stop=replay.stop,
        close=replay.close,
        reopen=None if source.live else lambda: paced(source.reopen(), rate_hz, loop),
    )


class _Replay:
    def __init__(self, source: FrameSource, period_s: float, loop: bool) -> None:
        self.counts = Counts()
        self._source = source
        self._period_s = period_s
        self._loop = loop
        self._stopped = threading.Event()
        self._late = 0

    def items(self) -> Iterator[FrameItem]:
        # What a live source has is newest when it is asked for; a file is decoded ahead of the due time.
        return self._live_items() if self._source.live else self._file_items()

    def _live_items(self) -> Iterator[FrameItem]:
        frames = self._frames()
        for _ in self._due():
            if (item := next(frames, None)) is None:
                return
            yield item

    def _file_items(self) -> Iterator[FrameItem]:
        frames = self._frames()
        item = next(frames, None)
        for due_s in self._due():
            if item is None:
                return
            yield replace(item, captured_s=due_s)
            item = next(frames, None)

    def _due(self) -> Iterator[float]:
        """Waits for each due time and gives it; of several that have passed only the newest."""
        start_s, slot = time.monotonic(), 0
        while not self._stopped.wait(start_s + slot * self._period_s - time.monotonic()):
            newest = max(slot, int((time.monotonic() - start_s) / self._period_s))
            self._late += newest - slot
            self.counts.skipped = self._late + self._source.skipped
            slot = newest + 1
            yield start_s + newest * self._period_s

    def stop(self) -> None:
        self._stopped.set()
        self._source.close()

    def close(self) -> None:
        self._source.close()

    def _frames(self) -> Iterator[FrameItem]:
        offset = rounds = 0
        while not self._stopped.is_set():
            before, last = (self.counts.damaged, self.counts.lost), -1
            for item in self._source:
                self._add_up(before)
                last = item.index
                name = f"{item.name}-r{rounds}" if rounds else item.name
                yield replace(item, name=name, index=offset + item.index)
            if not self._loop or last < 0:
                return
            offset, rounds = offset + last + 1, rounds + 1
            self._source.close()
            self._source = self._source.reopen()

    def _add_up(self, before: tuple[int, int]) -> None:
        self.counts.damaged = before[0] + self._source.damaged
        self.counts.lost = before[1] + self._source.lost
        self.counts.skipped = self._late + self._source.skipped
