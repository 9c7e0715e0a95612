"""The hours of a soak: take every result, look at the processes and the board now and then, close a window a minute."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from edgeseg.boards.telemetry import Telemetry
from edgeseg.commands.latency_histogram import LatencyHistogram
from edgeseg.commands.process_figures import process_figures
from edgeseg.commands.soak_windows import Window, WindowRecorder, Windows
from edgeseg.runtimes.stream_result import StreamResult, StreamStats

_WINDOW_S = 60.0
_FEWEST = 5  # windows, of which a short soak has shorter ones
_SAMPLES = 12  # of a window
_STALL_PERIODS = 10


@dataclass(frozen=True, slots=True)
class SoakPlan:
    """How long a soak is and how it is divided.

    Attributes:
        window_s: of one window: a minute, or a fifth of a soak of less than five.
        windows: after the warm-up.
        warm_up_s: before them.
    """

    window_s: float
    windows: int
    warm_up_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.warm_up_s + self.windows * self.window_s


def plan(minutes: float, warm_up_s: float | None) -> SoakPlan:
    """Divide so many minutes into windows; the warm-up comes on top, one window by default."""
    count = max(_FEWEST, math.ceil(minutes * 60 / _WINDOW_S))
    window_s = minutes * 60 / count
    return SoakPlan(window_s, count, window_s if warm_up_s is None else warm_up_s)


class SoakRun:
    """One soak.

    Attributes:
        windows: closed so far; the first is the warm-up.
        latency: of all results after the warm-up.
    """

    def __init__(self, plan: SoakPlan, period_ms: float, telemetry: Telemetry, without: Collection[int]) -> None:
        """Prepare; everything that grows with the length of the soak is allocated here.

        Args:
            plan: how long, and in which windows.
            period_ms: between two frames.
            telemetry: of this board.
            without: processes of this one's family that are no part of what is measured.
        """
        self.windows = Windows(plan.windows + 1)
        self.latency = LatencyHistogram()
        self._plan = plan
        self._period_ms = period_ms
        self._recorder = WindowRecorder(period_ms)
        self._telemetry = telemetry
        self._without = without

    def run(
        self,
        results: Iterable[StreamResult],
        stats: Callable[[], StreamStats],
        on_window: Callable[[Window], None],
        on_second: Callable[[float], None],
    ) -> bool:
        """Take results until all windows are full; False where the results ended before.

        Args:
            results: of the stream.
            stats: the stream's counts so far.
            on_window: called with every window that is full.
            on_second: called about once a second with the seconds since the start.
        """
        start_s = time.monotonic()
        self._recorder.begin(start_s)
        next_sample_s, next_second_s = start_s, start_s
        end_s = start_s + self._plan.warm_up_s
        for number, result in enumerate(results):
            if number == 1:
                # Fills every queue in the warm-up. Else memory grows by a frame at the first stall of the machine.
                time.sleep(_STALL_PERIODS * self._period_ms / 1e3)
            now_s = time.monotonic()
            self._record(result, now_s)
            if now_s >= next_second_s:
                on_second(now_s - start_s)
                next_second_s = now_s + 1
            if now_s >= next_sample_s:
                self._sample()
                next_sample_s = now_s + self._plan.window_s / _SAMPLES
            if now_s >= end_s:
                on_window(self._close(stats(), now_s))
                end_s += self._plan.window_s
                if len(self.windows) > self._plan.windows:
                    return True
        return False

    def _record(self, result: StreamResult, now_s: float) -> None:
        self._recorder.record(result, now_s)
        if len(self.windows):
            self.latency.record(result.latency_ms)

    def _sample(self) -> None:
        # What is garbage is no drift. Cheap, because what is loaded was frozen.
        gc.collect()
        self._recorder.sample(process_figures(self._without), self._telemetry.read())

    def _close(self, stats: StreamStats, now_s: float) -> Window:
        window = self._recorder.close(stats, now_s)
        self.windows.append(window)
        return window
