"""The pictures of a stream, drawn and written beside it: what the writer has no time for is left out and counted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from edgeseg.commands.run import _open_output, _Output, _write_rows
from edgeseg.commands.stream_setup import stand_back
from edgeseg.frames import FrameItem, FrameSource
from edgeseg.measure import Measurement, measure
from edgeseg.overlay import CLIP_SUFFIXES, draw
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
        if kind is None:
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
                sink, rows = _open_output(stack, self._source, self._output, None)
                while result is not None:
                    item, found = self._draw(result, sink)
                    if rows:
                        _write_rows(rows, item, found)
                    self.written += 1
                    result = self._queue.get()
        except Exception as error:
            self._error = error
            while result is not None:  # so that nobody waits for a place in the queue for ever
                result = self._queue.get()

    def _draw(self, result: StreamResult, sink: _Output) -> tuple[FrameItem, Sequence[Measurement]]:
        found = measure(result.mask, self._classes, result.pixel_size_mm)
        item = FrameItem(result.frame, result.name, result.index, result.time_s, result.pixel_size_mm)
        sink.write(item, result.mask, draw(result.frame, result.mask, text=_caption(result, found) or None))
        return item, found


def _caption(result: StreamResult, found: Sequence[Measurement]) -> str:
    text = "; ".join(str(m) for m in found if m.area_px)
    if result.freshness is Freshness.FRESH:
        return text
    age = "" if result.age_ms is None else f", {result.age_ms:.0f} ms old"
    return f"STALE{age}: {text}"
