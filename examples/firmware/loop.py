"""The work: frames in, results out, for as long as nobody asks for the end."""

from __future__ import annotations

import logging
from time import monotonic

import models
from control import Control
from health import Health
from journal import event
from models import Chain, Reload
from settings import Settings
from watchdog import Watchdog

from edgeseg import BadInput, NoSuchDevice, Stream, StreamOptions, StreamResult, open_source, paced, samples
from edgeseg.frames import FrameSource

PAUSE_S = 1.0


class Loop:
    """One device at work. It owns the chain, which it closes in the end."""

    def __init__(self, settings: Settings, chain: Chain, control: Control, health: Health, watchdog: Watchdog) -> None:
        self._settings = settings
        self._chain = chain
        self._control = control
        self._health = health
        self._watchdog = watchdog
        self._options = StreamOptions(deadline_ms=settings.deadline_ms, lossless=False)
        self._reload = Reload()
        self._troubled = False

    def run(self) -> None:
        """Work until the end is asked for. A source that goes away is opened again; the engines stay loaded meanwhile.

        Raises:
            StreamFailed: no engine of the chain is left.
        """
        try:
            while not self._control.stop.is_set():
                try:
                    self._work_on_a_source()
                except (BadInput, NoSuchDevice) as error:
                    self._health.counts.source_lost += 1
                    event("source lost", logging.WARNING, kind=type(error).__name__, reason=str(error))
                    self._pause()
        finally:
            self._reload.cancel()
            models.close(self._chain)
            self._health.write()

    def _work_on_a_source(self) -> None:
        with self._open() as source, self._control.ended_by(source.close):
            event("source opened", source=source.name, rate_hz=source.rate_hz)
            while chain := self._stream(source):
                models.close(self._chain)
                self._chain = chain
                self._health.counts.reloads += 1
            self._health.counts.damaged += source.damaged
        if not self._control.stop.is_set():
            raise BadInput(f"{source.name} has come to its end")

    def _open(self) -> FrameSource:
        settings = self._settings
        source = open_source(settings.source or samples.FRAMES, patience_s=settings.patience_s)
        return source if source.live else paced(source, settings.rate_hz, loop=True)

    def _stream(self, source: FrameSource) -> Chain | None:
        """Results until the source ends (None), or until a new chain is there to go on with."""
        # A stream closes its source with itself; this one is to outlive it.
        lent = FrameSource(source.name, source.kind, source, rate_hz=source.rate_hz, live=source.live)
        with Stream(lent, self._chain, self._options) as stream:
            try:
                for result in stream:
                    self._take(result)
                    if chain := self._reloaded():
                        return chain
            finally:
                self._health.add(stream.stats)
        return None

    def _take(self, result: StreamResult) -> None:
        """What a product does with a result; here it is counted, and shown once a second."""
        self._watchdog.alive()
        self._health.count(result)
        self._note_trouble(result)
        if self._health.due():
            self._health.write(result, hidden=self._too_old(result))
            counts = self._health.counts
            self._watchdog.status(f"{counts.results} results, {counts.stale} stale, {result.link}")

    def _too_old(self, result: StreamResult) -> bool:
        """Whether the outline is not to be shown: a picture without one is better than one that misleads."""
        return result.age_ms is None or result.age_ms > self._settings.hide_after_ms or result.frozen_s > 0

    def _note_trouble(self, result: StreamResult) -> None:
        """Log where trouble begins and where it ends: a line for each frame would bury what matters."""
        troubled = bool(result.fault)
        if troubled and not self._troubled:
            event("trouble", logging.WARNING, frame=result.index, link=result.link, reason=result.fault)
        if self._troubled and not troubled:
            event("fresh again", frame=result.index, link=result.link)
        self._troubled = troubled

    def _reloaded(self) -> Chain | None:
        if self._control.reload.is_set():
            self._control.reload.clear()
            self._reload.start(self._settings)
        return self._reload.take()

    def _pause(self) -> None:
        until = monotonic() + PAUSE_S
        while monotonic() < until and not self._control.stop.wait(PAUSE_S / 10):
            self._watchdog.alive()
