"""Signals as requests: SIGTERM and SIGINT to end, SIGHUP to load the bundles anew."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

_REQUESTS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Control:
    """Waits for signals in a thread of its own; make it before anything starts another thread.

    A signal handler runs in the middle of whatever the main thread does, perhaps with a lock held that it would need
    itself. Blocked everywhere and waited for in one thread, a signal is an event like any other.

    Attributes:
        stop: whether the end is asked for.
        reload: whether new bundles are; whoever serves that clears it.
    """

    def __init__(self) -> None:
        self.stop = Event()
        self.reload = Event()
        self._lock = Lock()
        self._end: Callable[[], None] | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
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
            if signal.sigwait(_REQUESTS) == signal.SIGHUP:
                self.reload.set()
                continue
            self.stop.set()
            with self._lock:
                if self._end:
                    self._end()
