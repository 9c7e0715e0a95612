"""Signals as requests: SIGTERM and SIGINT to end, SIGHUP to load the bundles anew."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

_REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Control:
    """Waits for signals in a thread of its own; made by the main thread.

    A signal handler runs in the middle of whatever the main thread does, perhaps with a lock held that it would need
    itself. So the handler does nothing: Python writes the number of each signal to a pipe, whichever thread it reached,
    and a thread reads it there. To block signals and wait for them in one thread is not enough: numpy starts threads
    when it is imported, which have them unblocked.

    Attributes:
        stop: whether the end is asked for.
        reload: whether new bundles are; whoever serves that clears it.
    """

    def __init__(self) -> None:
        self.stop = Event()
        self.reload = Event()
        self._lock = Lock()
        self._end: Callable[[], None] | None = None
        self._numbers, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told)
        for number in _REQUESTS:
            signal.signal(number, lambda number, frame: None)
        Thread(target=self._wait, name="firmware-signals", daemon=True).start()

    @contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """Within the block, a request to end calls `end` too: that is how whoever waits for a frame is woken."""
        with self._lock:
            self._end = end
        try:
            if self.stop.is_set():
                end()
            yield
        finally:
            with self._lock:
                self._end = None

    def _wait(self) -> None:
        while True:
            for number in os.read(self._numbers, 64):
                self._request(number)

    def _request(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.reload.set()
            return
        self.stop.set()
        with self._lock:
            if self._end:
                self._end()
