"""What is held against an engine, and what is not: the watchdog's judgement, with a lane that only tells times."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgeseg.errors import StreamFailed
from edgeseg.frame_source import FrameItem
from edgeseg.runtimes.stream_core import Core
from edgeseg.runtimes.stream_outbox import Arrival
from edgeseg.runtimes.stream_schedule import Margin, Schedule

FRAME = np.zeros((4, 6), np.uint8)
LIMIT_S = 0.2


class Lane:
    """Hangs for ever; `starved` is for how much of that its thread had no processor."""

    def __init__(self, position: int, starved: bool = False) -> None:
        self.position = position
        self.name = f"lane {position}"
        self.given_up = 0.0
        self._starved = starved

    def limit_s(self, schedule: Schedule, *, last: bool) -> float:
        return LIMIT_S

    def starved_s(self) -> float:
        return time.monotonic() if self._starved else 0.0

    def took(self, seconds: float) -> None:
        pass

    def give_up(self, hangs: bool) -> None:
        self.given_up = time.monotonic()


def core_of(*lanes: Lane, deadline_s: float = 0.1) -> Core:
    core = Core(Schedule(deadline_s, None, lossless=False, queue=1, results=50), lanes)
    threading.Thread(target=core.watch, daemon=True).start()
    return core


@pytest.fixture
def arrivals() -> Iterator[Arrival]:
    return (Arrival(FrameItem(FRAME, f"f{i}", i), time.monotonic()) for i in range(1000))


def test_a_call_that_hangs_is_given_up_at_its_limit(arrivals: Iterator[Arrival]) -> None:
    lane = Lane(0)
    core = core_of(lane)
    core.offer(next(arrivals))
    began = time.monotonic()
    core.take(lane)
    stale = core.next_result()
    assert stale is not None
    assert stale.latency_ms < 100 + 100
    with pytest.raises(StreamFailed):
        core.next_result()
    assert LIMIT_S <= lane.given_up - began < 2 * LIMIT_S + 0.2


def test_time_without_a_processor_is_not_held_against_it_but_not_for_ever(arrivals: Iterator[Arrival]) -> None:
    lane = Lane(0, starved=True)
    core = core_of(lane)
    core.offer(next(arrivals))
    began = time.monotonic()
    core.take(lane)
    core.next_result()
    with pytest.raises(StreamFailed):
        core.next_result()
    # Excused for five times its limit at most.
    assert 5 * LIMIT_S < lane.given_up - began < 8 * LIMIT_S


def test_an_answer_of_a_lane_that_was_given_up_is_nobody_s(arrivals: Iterator[Arrival]) -> None:
    first, second = Lane(0), Lane(1)
    core = core_of(first, second)
    arrival = next(arrivals)
    core.offer(arrival)
    core.take(first)
    core.fail(first, arrival, "broke")
    core.answer(first, arrival, None, FRAME)
    assert core.take(first) is None
    again = core.take(second)
    assert again is arrival
    core.answer(second, again, None, np.ones_like(FRAME))
    result = core.next_result()
    assert result is not None
    assert (result.position, result.mask.max()) == (1, 1)
    core.end()


def test_the_margin_follows_how_late_the_watchdog_wakes() -> None:
    margin = Margin()
    margin.overslept(0.004)
    assert margin.of(0.1) == pytest.approx(0.008)
    for _ in range(1000):
        margin.overslept(0.0)
    assert margin.of(0.1) == pytest.approx(0.002)
    margin.overslept(1.0)
    assert margin.of(0.1) == pytest.approx(0.025)  # never more than a quarter of the deadline
