"""One stream of the command line, from its first frame to its summary."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgeseg.boards.telemetry import Telemetry
from edgeseg.commands.end_signals import EndSignals
from edgeseg.commands.json_lines import JsonLines
from edgeseg.commands.live_view import ShowStream, StreamView, say
from edgeseg.commands.stream_figures import StreamFigures, closing_lines, result_record, summary_record
from edgeseg.commands.stream_options import StreamRequest
from edgeseg.commands.stream_output import DrawingThread
from edgeseg.commands.stream_setup import Setup, open_setup, results
from edgeseg.errors import BadInput, EdgesegError
from edgeseg.measure import measure

if TYPE_CHECKING:
    from edgeseg.runtimes.stream import Stream
    from edgeseg.runtimes.stream_result import StreamOptions, StreamResult

_LAST_WORDS_S = 2.0  # for a reader of --json that takes nothing any more


@dataclass(frozen=True, slots=True)
class Until:
    """When a stream is to end, if it does not before: after so many results or seconds; None for no limit."""

    frames: int | None = None
    seconds: float | None = None


class StreamRun:
    """One stream: its engines, its output and what is said of it."""

    def __init__(
        self,
        request: StreamRequest,
        until: Until,
        signals: EndSignals,
        lines: JsonLines | None,
        console: Console | None,
    ) -> None:
        """Prepare.

        Args:
            request: what the command line asks for.
            until: when to end.
            signals: end it too.
            lines: where results go for programs.
            console: where a person looks on.
        """
        self._request, self._until, self._signals = request, until, signals
        self._lines, self._console = lines, console
        self._timed_out = threading.Event()

    def run(self, output: Path | None, options: StreamOptions, *, loop: bool) -> None:
        """Stream until the end; `output` gets the pictures.

        Raises:
            EdgesegError: what ended the stream; all results until then were written.
        """
        # Imported here: `edgeseg stream --help` needs no runtime.
        from edgeseg.runtimes.stream import Stream

        with ExitStack() as stack:
            lossless = bool(options.lossless)
            with self._signals.waiting():
                setup = open_setup(stack, self._request, loop=loop, lossless=lossless)
            classes = setup.bundle.classes
            drawing = DrawingThread(output, setup.source, classes, lossless=lossless) if output else None
            self._announce(setup)
            self._figures = StreamFigures(time.monotonic())
            stream = Stream(setup.source, setup.chain, options)
            if self._console:
                view = StreamView(
                    setup.facts, self._figures, lambda: stream.stats, stack.enter_context(Telemetry()).read
                )
                stack.enter_context(ShowStream(view, self._console))
            reason, error = self._take(setup, stream, drawing)
        self._summarise(setup, stream, drawing, reason, error)
        if error:
            raise error

    def _take(self, setup: Setup, stream: Stream, drawing: DrawingThread | None) -> tuple[str, EdgesegError | None]:
        """Take results until there is a reason to end; that reason, and the error where it is one."""
        try:
            with drawing or contextlib.nullcontext(), stream, self._alarm(stream):
                for count, result in enumerate(results(stream, self._signals), start=1):
                    self._figures.record(result, time.monotonic())
                    if drawing:
                        drawing.put(result)
                    self._write_result(setup, result)
                    if count == self._until.frames:
                        return "frames", None
        except KeyboardInterrupt:
            return "interrupted", None
        except EdgesegError as error:
            return "error", error
        return "seconds" if self._timed_out.is_set() else "end", None

    @contextlib.contextmanager
    def _alarm(self, stream: Stream) -> Iterator[None]:
        """Close the stream when its time is over, also where no result comes any more."""
        if self._until.seconds is None:
            yield
            return

        def ring() -> None:
            self._timed_out.set()
            stream.close()

        alarm = threading.Timer(min(self._until.seconds, threading.TIMEOUT_MAX), ring)
        alarm.daemon = True
        alarm.start()
        try:
            yield
        finally:
            alarm.cancel()

    def _announce(self, setup: Setup) -> None:
        if self._lines:
            self._lines.write({"schema": 1, "kind": "start", **setup.document(), "live": setup.live})
        if self._console:
            for line in setup.notes:
                say(self._console, line)

    def _write_result(self, setup: Setup, result: StreamResult) -> None:
        if not self._lines:
            return
        patience_s = None
        if self._until.seconds is not None:
            patience_s = max(0.0, self._until.seconds - self._figures.seconds(time.monotonic()))
        record = result_record(result, measure(result.mask, setup.bundle.classes, result.pixel_size_mm))
        with self._signals.waiting():
            self._lines.write(record, patience_s)

    def _summarise(
        self, setup: Setup, stream: Stream, drawing: DrawingThread | None, reason: str, error: EdgesegError | None
    ) -> None:
        drawn: dict[str, Any] = {"written": drawing.written, "left_out": drawing.left_out} if drawing else {}
        summary = summary_record(self._figures, stream.stats, reason, error)
        summary |= {"written": None, "left_out": None} | drawn
        if self._console:
            for line in closing_lines(summary, setup.deadline_ms):
                say(self._console, line)
        if self._lines and not self._lines.write(summary, _LAST_WORDS_S) and not error:
            raise BadInput("nobody reads what --json writes: the stream ended well, its summary could not be written")
