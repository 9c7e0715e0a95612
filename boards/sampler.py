"""Telemetry beside the work: a thread that reads at a steady rate and never grows."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from edgeseg.boards.telemetry import Reading, Telemetry

_MEASURED = ("power_mw", "temperature_c", "clock_mhz", "gpu_load", "memory_available_bytes", "load")
_CAPACITY = 4096


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, mean and most of all samples that had a value; `count` says how many had."""

    least: float
    mean: float
    most: float
    count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All samples of a run.

    Attributes:
        samples: how many.
        seconds: from start to now, or to the end.
        spreads: by the names of Reading's numbers; one that was never readable is absent.
        throttled_share: of the samples that could tell, 0..1; None where none could.
        throttled_by: the reasons, with the number of samples each was in.
        governors: those seen.
        cost: share of one core that sampling took.
    """

    samples: int
    seconds: float
    spreads: Mapping[str, Spread]
    throttled_share: float | None
    throttled_by: Mapping[str, int]
    governors: tuple[str, ...]
    cost: float


def joined(first: Summary, second: Summary) -> Summary:
    """Both as one, as if a single run had been sampled; what was not read in between is not in it."""
    seconds = first.seconds + second.seconds
    spreads = dict(first.spreads)
    for name, spread in second.spreads.items():
        spreads[name] = _both(spreads[name], spread) if name in spreads else spread
    told = [(part.throttled_share, part.samples) for part in (first, second) if part.throttled_share is not None]
    weight = sum(samples for _, samples in told)
    return Summary(
        samples=first.samples + second.samples,
        seconds=seconds,
        spreads=spreads,
        throttled_share=sum(share * samples for share, samples in told) / weight if weight else None,
        throttled_by=dict(Counter(first.throttled_by) + Counter(second.throttled_by)),
        governors=tuple(dict.fromkeys((*first.governors, *second.governors))),
        cost=(first.cost * first.seconds + second.cost * second.seconds) / seconds if seconds else 0.0,
    )


def _both(first: Spread, second: Spread) -> Spread:
    count = first.count + second.count
    mean = (first.mean * first.count + second.mean * second.count) / count
    return Spread(min(first.least, second.least), mean, max(first.most, second.most), count)


class Sampler:
    """Reads a Telemetry at a steady rate in a thread of its own, from `__enter__` to `__exit__`.

    Memory is bounded: when `capacity` readings are kept, every other one goes and from then on only every second
    (fourth, ...) is kept, so that they always cover the whole run. The summary counts all.

    Args:
        telemetry: read by this thread alone while it runs; closing it stays with the caller.
        rate_hz: samples a second.
        capacity: the most readings that are kept, at least 2.
    """

    def __init__(self, telemetry: Telemetry, rate_hz: float = 10.0, capacity: int = _CAPACITY) -> None:
        if rate_hz <= 0 or capacity < 2:
            raise ValueError(f"a sampler needs a rate above 0 and a capacity of 2, got {rate_hz:g} and {capacity}")
        self._telemetry = telemetry
        self._period = 1 / rate_hz
        self._capacity = capacity
        self._stride = 1
        self._kept: list[Reading] = []
        self._tally = _Tally()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeseg-telemetry", daemon=True)
        self._started = self._ended = self._spent = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._ended = time.monotonic()

    def latest(self) -> Reading | None:
        """The last reading; None before the first."""
        with self._lock:
            return self._tally.last

    def readings(self) -> tuple[Reading, ...]:
        """Those kept, evenly over the whole run, in order."""
        with self._lock:
            return tuple(self._kept)

    def summary(self) -> Summary:
        """All samples so far; may be asked for while it runs."""
        with self._lock:
            seconds = (self._ended or time.monotonic()) - self._started if self._started else 0.0
            return self._tally.summary(seconds, self._spent / seconds if seconds else 0.0)

    def _run(self) -> None:
        began = time.thread_time()
        due = time.monotonic()
        while True:
            reading = self._telemetry.read()
            with self._lock:
                self._keep(reading)
                self._spent = time.thread_time() - began
            due = max(due + self._period, time.monotonic())
            if self._stop.wait(due - time.monotonic()):
                return

    def _keep(self, reading: Reading) -> None:
        if self._tally.samples % self._stride == 0:
            self._kept.append(reading)
            if len(self._kept) >= self._capacity:
                del self._kept[1::2]
                self._stride *= 2
        self._tally.add(reading)


class _Tally:
    """Running figures of any number of readings."""

    def __init__(self) -> None:
        self.samples = 0
        self.last: Reading | None = None
        self._spreads: dict[str, list[float]] = {}
        self._told = self._throttled = 0
        self._reasons: Counter[str] = Counter()
        self._governors: dict[str, None] = {}

    def add(self, reading: Reading) -> None:
        self.samples += 1
        self.last = reading
        for name in _MEASURED:
            if (value := getattr(reading, name)) is not None:
                least, total, most, count = self._spreads.get(name, (value, 0.0, value, 0))
                self._spreads[name] = [min(least, value), total + value, max(most, value), count + 1]
        if reading.throttled is not None:
            self._told += 1
            self._throttled += reading.throttled
        self._reasons.update(reading.throttled_by or ())
        if reading.governor is not None:
            self._governors[reading.governor] = None

    def summary(self, seconds: float, cost: float) -> Summary:
        return Summary(
            samples=self.samples,
            seconds=seconds,
            spreads=dict(_spreads(self._spreads)),
            throttled_share=self._throttled / self._told if self._told else None,
            throttled_by=dict(self._reasons),
            governors=tuple(self._governors),
            cost=cost,
        )


def _spreads(found: Mapping[str, list[float]]) -> Iterable[tuple[str, Spread]]:
    for name, (least, total, most, count) in found.items():
        yield name, Spread(least, total / count, most, int(count))
