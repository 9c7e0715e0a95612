"""One segmenter of a stream's chain, in a thread of its own: one that hangs is left behind, the next one goes on."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread, current_thread
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import InferenceError, StreamFailed
from edgeseg.frame_source import FrameItem
from edgeseg.runtimes import realtime
from edgeseg.runtimes.segmenter import Segmentation, Segmenter
from edgeseg.runtimes.stream_schedule import Schedule
from edgeseg.scan_area import tracker
from edgeseg.types import Mask

if TYPE_CHECKING:
    from edgeseg.runtimes.stream_core import Core
    from edgeseg.smoothing import Smoother

_WARM_UPS = 3
_WARM_UP_LIMIT_S = 30.0
_MID_GRAY = 128
_HANG_DEADLINES, _HANG_CALLS = 2.0, 4.0
_PATIENCE_S = 1.0
_LEARNING = 0.1
_LONGEST_REASON = 240


class Lane:
    """A segmenter and the thread that calls it.

    Attributes:
        position: in the chain.
        name: as in "openvino-int8 on openvino CPU".
    """

    def __init__(self, segmenter: Segmenter, position: int, smoothing: float = 0.0) -> None:
        self.position = position
        self.name = f"{segmenter.artifact.name} on {segmenter.runtime} {segmenter.device}"
        self._segmenter = segmenter
        self._smoother = _smoother(smoothing)
        self._tracker = tracker(segmenter.preprocess)
        self._usual_s = 0.0
        self._ready = Event()
        self._obstacle: Exception | None = None
        self._thread: Thread | None = None

    def start(self, core: Core) -> None:
        """Start the thread and wait until its segmenter is warm.

        Raises:
            InferenceError: it fails on a gray frame.
            StreamFailed: it gives no answer.
        """
        self._thread = Thread(target=self._run, args=(core,), name=f"edgeseg-lane-{self.position}", daemon=True)
        self._thread.start()
        if not self._ready.wait(_WARM_UP_LIMIT_S):
            raise StreamFailed(f"{self.name} gave no answer within {_WARM_UP_LIMIT_S:g} s while it was warmed up")
        if self._obstacle is not None:
            raise self._obstacle

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; returns whether it did."""
        if self._thread is None or self._thread is current_thread():
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def limit_s(self, schedule: Schedule, *, last: bool) -> float:
        """After how long without an answer it is given up; the last one of a chain gets more time."""
        if schedule.hang_s is not None:
            return schedule.hang_s
        deadlines_s = 0.0 if schedule.lossless else _HANG_DEADLINES * schedule.deadline_s
        patience_s = _PATIENCE_S if last or schedule.lossless else 0.0
        return max(deadlines_s, _HANG_CALLS * self._usual_s, patience_s)

    def starved_s(self) -> float:
        """For how long its thread was ready to run and got no processor; 0 where the kernel does not tell."""
        return realtime.starved_s(self._thread.native_id) if self._thread and self._thread.native_id else 0.0

    def took(self, seconds: float) -> None:
        """Learn how long a call took; one that took very long says little of the next ones."""
        self._usual_s += _LEARNING * (min(seconds, _HANG_CALLS * self._usual_s) - self._usual_s)

    def give_up(self, hangs: bool) -> None:
        """What hangs in an engine, perhaps spinning, is ended, or must at least not keep others from the processor."""
        if hangs:
            self._segmenter.abort()
        if self._thread is not None and self._thread.native_id:
            realtime.demote(self._thread.native_id)

    def _run(self, core: Core) -> None:
        try:
            self._warm_up()
        except Exception as error:
            self._obstacle = error
            return
        finally:
            self._ready.set()
        while arrival := core.take(self):
            try:
                segmentation, mask = self._segment(arrival.item)
            except Exception as error:
                core.fail(self, arrival, self._reason(error))
            else:
                core.answer(self, arrival, segmentation, mask)

    def _warm_up(self) -> None:
        wanted = self._segmenter.preprocess
        gray = np.full((wanted.height, wanted.width), _MID_GRAY, np.uint8)
        confidence = self._smoother is not None
        self._usual_s = min(_timed(lambda: self._segmenter(gray, confidence=confidence)) for _ in range(_WARM_UPS))

    def _segment(self, item: FrameItem) -> tuple[Segmentation, Mask]:
        area = None if self._tracker is None else self._tracker.area(item.frame)
        result = self._segmenter(item.frame, area=area, confidence=self._smoother is not None)
        mask = result.mask
        if self._smoother is not None and result.confidence is not None:
            mask = self._smoother.update(result.confidence)
        if mask.shape != item.frame.shape[:2]:
            raise InferenceError(f"the mask has shape {mask.shape}, expected {item.frame.shape[:2]}")
        return result, mask

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).removeprefix(f"{self.name}: ").split()) or type(error).__name__
        return text[:_LONGEST_REASON] if isinstance(error, InferenceError) else f"{type(error).__name__}: {text}"


def _timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _smoother(weight: float) -> Smoother | None:
    if not weight:
        return None
    from edgeseg.smoothing import Smoother

    return Smoother(weight)
