"""Frames in, one result for each within its deadline: capture, inference and consumption at the same time."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from threading import RLock, Thread, current_thread
from typing import Self

from edgeseg.errors import BadInput, InferenceError
from edgeseg.frame_source import FrameSource
from edgeseg.runtimes import realtime
from edgeseg.runtimes.frozen import FreezeDetector
from edgeseg.runtimes.lane import Lane
from edgeseg.runtimes.segmenter import Segmenter
from edgeseg.runtimes.stream_capture import capture
from edgeseg.runtimes.stream_core import Core
from edgeseg.runtimes.stream_result import StreamOptions, StreamResult, StreamStats
from edgeseg.runtimes.stream_schedule import Schedule

_LEAVE_S = 1.0

log = logging.getLogger("edgeseg.stream")


class Stream:
    """An iterator of results, one for every frame that is not dropped; a context manager.

        with Stream(source, load_chain(bundle)) as stream:
            for result in stream:
                ...

    Results come in the order of the frames. Each is there before its frame's deadline: fresh, or marked stale with
    the age of its mask. A segmenter that raises, hangs, or gives values that are not finite or of another shape is
    given up for good, and the next one of the chain goes on with the same frame where there is time.

    Args:
        source: where frames come from; closed with the stream.
        segmenters: one, or a chain of them, the first choice first. They stay open, and belong to the stream until it
            is closed: nobody else may call them.
        options: see `StreamOptions`.

    Raises:
        BadInput: there is no segmenter.
    """

    def __init__(
        self, source: FrameSource, segmenters: Segmenter | Sequence[Segmenter], options: StreamOptions | None = None
    ) -> None:
        chain = (segmenters,) if isinstance(segmenters, Segmenter) else tuple(segmenters)
        if not chain:
            raise BadInput("a stream needs at least one segmenter")
        options = options or StreamOptions()
        schedule = Schedule.of(options, source.rate_hz, source.live)
        self._source = source
        self._lanes = tuple(Lane(segmenter, position, options.smoothing) for position, segmenter in enumerate(chain))
        self._core = Core(schedule, self._lanes)
        self._detector = FreezeDetector(options.freeze_s)
        # Re-entrant: a signal handler may close what its own thread is closing.
        self._closing = RLock()
        self._stop: weakref.finalize[..., Stream] | None = None

    @property
    def stats(self) -> StreamStats:
        """What happened so far; to be asked from any thread, also after the end."""
        return self._core.stats(self._source)

    def start(self) -> None:
        """Warm the segmenters up, each in its own thread, and begin to capture; `with` does it.

        Raises:
            InferenceError: a segmenter does not work, or the stream was started before.
        """
        if self._stop is not None:
            raise InferenceError("the stream was started before, make another one")
        core, source = self._core, self._source
        threads = [
            Thread(target=_guarded_watch, args=(core,), name="edgeseg-watchdog", daemon=True),
            Thread(target=_urgent_capture, args=(source, core, self._detector), name="edgeseg-capture", daemon=True),
        ]
        # Also when the stream is forgotten, or the interpreter ends: threads must not be in an engine then.
        self._stop = weakref.finalize(self, _stop, core, source, threads, self._lanes)
        try:
            for lane in self._lanes:
                lane.start(core)
        except BaseException:
            self.close()
            raise
        for thread in threads:
            thread.start()

    def close(self) -> None:
        """End the threads and close the source; calling it twice is allowed.

        A thread that hangs in an engine of this process cannot be ended: it is left behind, and a warning says so.
        """
        with self._closing:
            if self._stop is None:
                self._source.close()
            else:
                self._stop()

    @property
    def ended(self) -> bool:
        """Whether every result was read and no more will come."""
        return self._core.ended

    def read(self, timeout_s: float | None = None) -> StreamResult | None:
        """Wait for the next result, but not for ever: a source that is silent gives none.

        Args:
            timeout_s: None to wait as long as it takes.

        Returns:
            The result; None where none came in time, or where there are no more: see `ended`.

        Raises:
            StreamFailed: no segmenter of the chain is left; the results up to there were given.
            BadInput: the source ends badly, as a truncated clip does; the results up to there were given.
            InferenceError: the stream was not started.
        """
        if self._stop is None:
            raise InferenceError("the stream is not started: use it in a `with` block")
        return self._core.next_result(timeout_s)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamResult:
        """Wait for the next result.

        Raises:
            StopIteration: the source came to its end, or the stream was closed.
            InferenceError: as `read`.
        """
        result = self.read()
        if result is None:
            raise StopIteration
        return result

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _urgent_capture(source: FrameSource, core: Core, detector: FreezeDetector) -> None:
    realtime.raise_priority()
    capture(source, core, detector)


def _guarded_watch(core: Core) -> None:
    realtime.raise_priority()
    try:
        core.watch()
    except Exception as error:
        # Without its watchdog a stream keeps no promise.
        core.end(error)


def _stop(core: Core, source: FrameSource, threads: Sequence[Thread], lanes: Sequence[Lane]) -> None:
    core.end()
    source.close()
    for thread in threads:
        if thread.ident is not None and thread is not current_thread():
            thread.join(_LEAVE_S)
            if thread.is_alive():
                log.warning("thread %s does not end, it is left behind", thread.name)
    for lane in lanes:
        if not lane.join(_LEAVE_S):
            log.warning("%s still hangs, its thread is left behind", lane.name)
