"""The pictures of a stream, drawn and written beside it: what the writer has no time for is left out and counted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from edgeseg.commands.run_output import Outcome, Wanted, open_output
from edgeseg.commands.stream_setup import stand_back
from edgeseg.frames import FrameItem, FrameSource
from edgeseg.measure import measure
from edgeseg.overlay import CLIP_SUFFIXES
from edgeseg.runtimes.stream_result import Freshness, StreamResult

_WAITING = 8  # results that the writer may be behind


class DrawingThread:
    """Draws and writes results in a thread of its own; a context manager, at whose end everything is on disk.

    Attributes:
        written: results that were written.
        left_out: results that the writer had no time for.
    """

    def __init__(self, output: Path, source: FrameSource, classes: Sequence[str], *, lossless: bool) -> None:
        """Prepare a writer.

        Args:
            output: a folder, or a clip with the rate of `source`; begun when the first result is there. A clip also
                gets the stale results, marked.
            source: where the frames come from.
            classes: of the masks.
            lossless: whether `put` waits where it would leave something out.
        """
        self.written = self.left_out = 0
        self._output = output
        self._source = source
        self._classes = classes
        self._lossless = lossless
        self._stale = output.suffix.lower() in CLIP_SUFFIXES
        self._error: Exception | None = None
        self._queue: queue.Queue[StreamResult | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="edgeseg-drawing")

    def put(self, result: StreamResult) -> None:
        """Have a result written.

        Raises:
            Exception: what ended the writer.
        """
        self._raise()
        if result.freshness is Freshness.STALE and not self._stale:
            return
        try:
            self._queue.put(result, block=self._lossless)
        except queue.Full:
            self.left_out += 1

    def __enter__(self) -> DrawingThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind in (None, KeyboardInterrupt):
            self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        stand_back()
        try:
            if (result := self._queue.get()) is None:
                return
            with ExitStack() as stack:
                output = open_output(stack, self._source, Wanted(self._output), self._classes)
                while result is not None:
                    output.write(self._outcome(result))
                    self.written += 1
                    result = self._queue.get()
        except Exception as error:
            self._error = error
            while result is not None:  # so that nobody waits for a place in the queue for ever
                result = self._queue.get()

    def _outcome(self, result: StreamResult) -> Outcome:
        item = FrameItem(result.frame, result.name, result.index, result.time_s, result.pixel_size_mm)
        found = measure(result.mask, self._classes, result.pixel_size_mm)
        return Outcome(item, result.mask, found, stale=_stale(result))


def _stale(result: StreamResult) -> str | None:
    if result.freshness is Freshness.FRESH:
        return None
    return "STALE" if result.age_ms is None else f"STALE, {result.age_ms:.0f} ms old"
