"""What every live source has in common: a device that may go away and come back, and the newest frame of a thread."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from edgeseg.errors import BadInput
from edgeseg.frame_source import Counts, FrameItem, safe_name
from edgeseg.types import Frame

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_CLOSE_PATIENCE_S, _EXIT_PATIENCE_S = 0.15, 6.0

_log = logging.getLogger("edgeseg.sources")


class Gone(Exception):
    """The device or the other side went away; the text says how."""


class Ended(Exception):
    """The other side said that no more frames come."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A frame [H, W] or [H, W, 3] RGB uint8, its time by `time.monotonic()`, and how many were missed before it."""

    frame: Frame
    captured_s: float
    pixel_size_mm: float | None = None
    skipped: int = 0


class Device(Protocol):
    """What gives frames as long as it is there."""

    def open(self) -> None:
        """Connect, also again after `close`. Raises Gone where it is not there, BadInput where it never will be."""
        ...

    def read(self) -> Shot | None:
        """The next frame, None where none came within a fraction of a second. Raises Gone, Ended or BadInput."""
        ...

    def close(self) -> None:
        """Free what `open` took; calling it twice is allowed."""
        ...


def keep_reading(
    device: Device, name: str, counts: Counts, stopped: threading.Event, patience_s: float
) -> Iterator[Shot]:
    """Frames of an opened device; where it goes away it is opened again, for at most `patience_s` seconds.

    Raises:
        BadInput: the device did not come back in time, or sends what cannot be read.
    """
    frames = 0
    while not stopped.is_set():
        try:
            shot = device.read()
        except Ended:
            return
        except Gone as gone:
            device.close()
            _log.warning("%s went away after %d frames: %s; waiting for it", name, frames, gone)
            if not _comes_back(device, stopped, patience_s):
                if stopped.is_set():
                    return
                raise BadInput(
                    f"{name} went away after {frames} frames and did not come back within {patience_s:g} s: {gone}"
                ) from None
            counts.lost += 1
            _log.warning("%s is back", name)
            continue
        if shot is not None:
            frames += 1
            yield shot


def _comes_back(device: Device, stopped: threading.Event, patience_s: float) -> bool:
    until, pause = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while not stopped.wait(min(pause, max(0.0, until - time.monotonic()))):
        try:
            device.open()
        except Gone:
            if time.monotonic() >= until:
                return False
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            return True
    return False


def items(shots: Iterator[Shot], name: str, counts: Counts) -> Iterator[FrameItem]:
    """Shots as frames of a source; frames that were missed leave a gap in the indices."""
    index, stem = 0, safe_name(name)
    for shot in shots:
        counts.skipped += shot.skipped
        index += shot.skipped
        yield FrameItem(
            shot.frame, f"{stem}-{index:06d}", index, pixel_size_mm=shot.pixel_size_mm, captured_s=shot.captured_s
        )
        index += 1


class Newest:
    """A thread that keeps only the newest shot: a reader is never behind, and stopping never waits for a device."""

    def __init__(self, shots: Iterator[Shot], stopped: threading.Event, close: Callable[[], None]) -> None:
        """Start the thread, which runs `close` when `shots` ends or raises, or soon after `stop`."""
        self._shots, self._stopped, self._close = shots, stopped, close
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._skipped = 0
        self._over = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="edgeseg-capture", daemon=True)
        # A thread that comes back from a C++ library into an interpreter that has gone would abort the process.
        atexit.register(self._wait_at_exit)
        self._thread.start()

    def shots(self) -> Iterator[Shot]:
        """Each time the newest shot that was not given yet; waits for it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._shot or self._over or self._stopped.is_set())
                shot, self._shot = self._shot, None
                skipped, self._skipped = self._skipped, 0
                error = self._error
            if self._stopped.is_set():
                return
            if shot is not None:
                yield Shot(shot.frame, shot.captured_s, shot.pixel_size_mm, shot.skipped + skipped)
            elif error:
                raise error
            else:
                return

    def stop(self) -> None:
        """End `shots`, and the thread as soon as its device lets go of it."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def join(self) -> None:
        """Give the thread a moment to let go of its device; one that does not is left to do so when it can."""
        self._thread.join(_CLOSE_PATIENCE_S)

    def _run(self) -> None:
        try:
            for shot in self._shots:
                with self._changed:
                    if self._shot is not None:
                        self._skipped += 1 + self._shot.skipped
                    self._shot = shot
                    self._changed.notify_all()
        except Exception as error:
            self._error = error
        finally:
            self._close()
            with self._changed:
                self._over = True
                self._changed.notify_all()
            atexit.unregister(self._wait_at_exit)

    def _wait_at_exit(self) -> None:
        self.stop()
        self._thread.join(_EXIT_PATIENCE_S)
