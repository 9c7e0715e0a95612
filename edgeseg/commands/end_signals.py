"""Ctrl-C and SIGTERM as the normal end of a command that has none of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndSignals:
    """Turns the first SIGINT or SIGTERM into a KeyboardInterrupt, but only where the command waits.

    Whatever it is writing gets finished first. A second signal does what it does to every other program. A context
    manager, of the main thread.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> EndSignals:
        for number in _SIGNALS:
            # A shell that starts a job in the background has it ignore Ctrl-C.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Where KeyboardInterrupt may be raised; it is at once where a signal has come before."""
        self._waiting = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        if self._waiting:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
