"""What the threads of a stream share: frames that wait, the one that is being segmented, and who is in charge.

One lock guards all of it. Every method is for one kind of thread: `offer` and `end_of_source` for the capture, `take`,
`answer` and `fail` for the lanes, `watch` for the watchdog, `next_result` for the consumer.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Condition, RLock
from time import monotonic
from typing import Protocol

from edgeseg.errors import StreamFailed
from edgeseg.frame_source import FrameSource
from edgeseg.runtimes.segmenter import Segmentation
from edgeseg.runtimes.stream_outbox import Arrival, Outbox
from edgeseg.runtimes.stream_result import StreamResult, StreamStats, Switch
from edgeseg.runtimes.stream_schedule import Margin, Schedule
from edgeseg.types import Mask

_LONGEST_EXCUSE = 5  # times the limit: then a thread that gets no processor is one that hangs

log = logging.getLogger("edgeseg.stream")


class Link(Protocol):
    """A segmenter of the chain, as the core knows it.

    Attributes:
        position: in the chain.
        name: as in "openvino-int8 on openvino CPU".
    """

    position: int
    name: str

    def limit_s(self, schedule: Schedule, *, last: bool) -> float:
        """After how long without an answer it is given up."""
        ...

    def starved_s(self) -> float:
        """For how long its thread was ready to run and got no processor, in all its life."""
        ...

    def took(self, seconds: float) -> None:
        """Learn how long a call took."""
        ...

    def give_up(self, hangs: bool) -> None:
        """Learn that it is given no more frames, and whether that is for want of an answer."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    """One call of a segmenter. Time that it could not help is not held against it: `excused_s`, and what its thread
    was starved for since it was `starved_s`.
    """

    arrival: Arrival
    began_s: float
    excused_s: float = 0.0
    starved_s: float | None = None


class Core:
    """The state of one stream; see the module."""

    def __init__(self, schedule: Schedule, lanes: Sequence[Link]) -> None:
        self._schedule = schedule
        self._lanes = lanes
        # Re-entrant: a signal handler may ask for the counts, or end the stream, while its own thread is in here.
        self._lock = RLock()
        self._turns = [Condition(self._lock) for _ in lanes]
        self._room, self._ready, self._timer = (Condition(self._lock) for _ in range(3))
        self._outbox = Outbox(schedule)
        self._waiting: deque[Arrival] = deque()
        self._retry: Arrival | None = None
        self._call: _Call | None = None
        self._active = 0
        self._margin = Margin()
        self._wakes_s = math.inf
        self._captured_before = 0
        self._source_ended = self._ended = False
        self._error: Exception | None = None

    def offer(self, arrival: Arrival) -> bool:
        """Put a frame into the queue; where that is full, drop the oldest or wait. Returns False at the end."""
        with self._lock:
            while self._schedule.lossless and len(self._waiting) >= self._schedule.queue and not self._ended:
                self._room.wait()
            if self._ended:
                return False
            self._outbox.captured += 1
            if len(self._waiting) >= self._schedule.queue:
                self._outbox.drop(not self._waiting.popleft().answered)
            self._waiting.append(arrival)
            self._turns[self._active].notify()
            self._wake_by(self._due_s(arrival))
            return True

    def end_of_source(self, error: Exception | None = None) -> None:
        """There are no more frames; `error` says why, where that is not simply the end."""
        with self._lock:
            self._source_ended = True
            self._error = self._error or error
            self._finish_if_done()

    def take(self, lane: Link) -> Arrival | None:
        """Wait for a frame for a lane; None tells it to end."""
        with self._lock:
            while not self._ended and lane.position >= self._active:
                if lane.position == self._active and (arrival := self._next_arrival()):
                    self._call = _Call(arrival, monotonic())
                    self._wake_by(self._hung_s(self._call))
                    return arrival
                self._turns[lane.position].wait()
            return None

    def answer(self, lane: Link, arrival: Arrival, segmentation: Segmentation, mask: Mask) -> None:
        """Give the result of a frame; nothing comes of it where the lane was given up or the stream has ended."""
        with self._lock:
            if self._call is None or self._call.arrival is not arrival or lane.position != self._active:
                return
            lane.took(monotonic() - self._call.began_s)
            self._call = None
            self._outbox.learn(arrival, mask)
            if arrival.answered:
                self._outbox.overtaken += 1
            else:
                self._outbox.fresh(arrival, lane.name, lane.position, segmentation)
                self._ready.notify()
            self._finish_if_done()

    def fail(self, lane: Link, arrival: Arrival, reason: str) -> None:
        """A lane could not segment a frame: the next one takes over, with this frame where it has no result yet."""
        with self._lock:
            if self._call is not None and self._call.arrival is arrival and lane.position == self._active:
                self._switch(self._call, reason)

    def watch(self) -> None:
        """Give every frame whose deadline is near a stale result, give up a lane that hangs, until the end."""
        with self._lock:
            while not self._ended:
                now = monotonic()
                overslept_s = max(now - self._wakes_s, 0.0)
                self._margin.overslept(overslept_s)
                if self._call is not None:
                    self._call.excused_s += overslept_s
                self._expire(now)
                self._check_hang(now)
                self._sleep()

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to wait for or to read."""
        with self._lock:
            return self._ended and not len(self._outbox) and self._error is None

    def next_result(self, timeout_s: float | None = None) -> StreamResult | None:
        """Wait for a result; None at the end, or after the time. Raises, once, what the stream ended with."""
        until_s = math.inf if timeout_s is None else monotonic() + timeout_s
        with self._lock:
            while True:
                result = self._outbox.pop()
                if result is not None:
                    if self._schedule.lossless and not self._ended:
                        self._turns[self._active].notify()
                    return result
                if self._ended:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    return None
                left_s = until_s - monotonic()
                if left_s <= 0:
                    return None
                self._ready.wait(None if timeout_s is None else left_s)

    def stats(self, source: FrameSource) -> StreamStats:
        """The counts so far."""
        with self._lock:
            return self._outbox.stats(source)

    def end(self, error: Exception | None = None) -> None:
        """Let every thread come to its end; frames that have no result yet are dropped."""
        with self._lock:
            self._error = self._error or error
            self._finish()

    # What follows is called with the lock held.

    def _next_arrival(self) -> Arrival | None:
        if self._schedule.lossless and self._outbox.full:
            return None
        if self._retry is not None:
            arrival, self._retry = self._retry, None
            return arrival
        if not self._waiting:
            return None
        while len(self._waiting) > 1 and self._waiting[0].answered:
            self._waiting.popleft()
        self._room.notify()
        return self._waiting.popleft()

    def _stale(self, arrival: Arrival, fault: str) -> None:
        lane = self._lanes[min(self._active, len(self._lanes) - 1)]
        self._outbox.stale(arrival, lane.name, lane.position, fault)
        self._ready.notify()

    def _expire(self, now: float) -> None:
        """Stale results for the frames that cannot wait any longer, and for all before them."""
        pending, call = list(self._pending()), self._call
        overdue = [number for number, arrival in enumerate(pending, 1) if self._due_s(arrival) <= now]
        for arrival in pending[: max(overdue, default=0)]:
            self._stale(arrival, self._excuse(arrival, now))
        if call and call.arrival.answered and call.starved_s is None:
            call.starved_s = self._lanes[self._active].starved_s()
        if self._retry and self._retry.answered:
            self._retry = None
        if call:
            # Else they stay: late as they are, the newest is what an idle lane can learn from.
            self._waiting = deque(arrival for arrival in self._waiting if not arrival.answered)
        self._finish_if_done()

    def _excuse(self, arrival: Arrival, now: float) -> str:
        """Why a frame gets a stale result."""
        call, lane = self._call, self._lanes[self._active]
        if call is None:
            return arrival.fault or f"it came too late for {lane.name}"
        if arrival is call.arrival:
            return f"{lane.name} gave no answer for {(now - call.began_s) * 1e3:.0f} ms"
        return f"{lane.name} was not free in time"

    def _check_hang(self, now: float) -> None:
        if self._call and self._hung_s(self._call) <= now:
            self._switch(self._call, f"no answer within {(now - self._call.began_s) * 1e3:.0f} ms", hangs=True)

    def _hung_s(self, call: _Call) -> float:
        """When a call is one that hangs. Time in which its thread got no processor does not count."""
        lane = self._lanes[self._active]
        limit_s = lane.limit_s(self._schedule, last=self._active == len(self._lanes) - 1)
        starved_s = 0.0 if call.starved_s is None else lane.starved_s() - call.starved_s
        return call.began_s + limit_s + min(call.excused_s + starved_s, _LONGEST_EXCUSE * limit_s)

    def _switch(self, call: _Call, reason: str, hangs: bool = False) -> None:
        """The next lane takes over, and the frame of the failed call with it, unless that has its result already."""
        arrival, failed = call.arrival, self._lanes[self._active]
        index = arrival.item.index
        self._call = None
        self._active += 1
        failed.give_up(hangs)
        arrival.fault = f"{failed.name}: {reason}"
        target = self._lanes[self._active].name if self._active < len(self._lanes) else ""
        self._outbox.switches.append(Switch(index, failed.name, target, reason))
        self._turns[failed.position].notify()
        if not target:
            self._fail(arrival, failed, reason)
            return
        log.warning("frame %d: %s is given up (%s), %s takes over", index, failed.name, reason, target)
        if not arrival.answered:
            self._retry = arrival
        self._turns[self._active].notify()
        self._finish_if_done()

    def _fail(self, arrival: Arrival, failed: Link, reason: str) -> None:
        index = arrival.item.index
        log.error("frame %d: %s is given up (%s), no segmenter is left", index, failed.name, reason)
        if not arrival.answered:
            self._stale(arrival, arrival.fault)
        self._error = StreamFailed(
            f"the stream ended at frame {index}: {failed.name} failed ({reason}), no segmenter of its chain is left"
        )
        self._finish()

    def _due_s(self, arrival: Arrival) -> float:
        """The last moment for a stale result."""
        stale_s = self._schedule.stale_s
        return arrival.captured_s + stale_s - self._margin.of(stale_s) if stale_s < math.inf else math.inf

    def _sleep(self) -> None:
        if self._ended:
            return
        now, soonest = monotonic(), min(map(self._due_s, self._pending()), default=math.inf)
        if self._call is not None:
            soonest = min(soonest, max(self._hung_s(self._call), now))
        if soonest < math.inf or self._outbox.captured != self._captured_before:
            soonest = min(soonest, now + self._schedule.nap_s(self._margin))
        self._captured_before = self._outbox.captured
        self._wakes_s = soonest
        self._timer.wait(None if soonest == math.inf else max(soonest - now, 0.0))

    def _wake_by(self, moment_s: float) -> None:
        """The watchdog sleeps until something is due: it is woken only for what is due earlier, or where it rests."""
        if moment_s < self._wakes_s or self._wakes_s == math.inf:
            self._timer.notify()

    def _pending(self) -> Iterator[Arrival]:
        """The frames that still have to get a result."""
        if self._call is not None and not self._call.arrival.answered:
            yield self._call.arrival
        if self._retry is not None:
            yield self._retry
        yield from (arrival for arrival in self._waiting if not arrival.answered)

    def _finish_if_done(self) -> None:
        if self._source_ended and self._call is None and not any(True for _ in self._pending()):
            self._finish()

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._outbox.drop(sum(1 for _ in self._pending()))
        self._waiting.clear()
        self._call = self._retry = None
        for condition in (*self._turns, self._room, self._ready, self._timer):
            condition.notify_all()
