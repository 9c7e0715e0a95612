"""A source of frames and a chain of engines for it, as `edgeseg stream` and `edgeseg soak` open them."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgeseg.boards.detect import describe
from edgeseg.bundle import open_bundle
from edgeseg.commands.end_signals import EndSignals
from edgeseg.commands.profile_plan import planned
from edgeseg.commands.stream_options import StreamRequest
from edgeseg.frames import FrameSource
from edgeseg.types import Bundle

if TYPE_CHECKING:
    from edgeseg.runtimes.realtime import RealTime
    from edgeseg.runtimes.segmenter import Segmenter
    from edgeseg.runtimes.stream import Stream
    from edgeseg.runtimes.stream_result import StreamResult

STILLS_HZ = 30.0  # at which images without a rate of their own are replayed


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What does not change while a stream runs.

    Attributes:
        bundle, source: their names.
        rate_hz: at which frames come; None where unknown.
        deadline_ms: None where there is none.
        classes: of the bundle.
        chain: names of the segmenters, first choice first.
        real_time: what the system permitted, "" where nothing was asked.
    """

    bundle: str
    source: str
    rate_hz: float | None
    deadline_ms: float | None
    classes: Sequence[str]
    chain: Sequence[str]
    real_time: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """A source and the engines that are to segment it, all open.

    Attributes:
        live: whether the source is one by itself, and no replay of files.
        chain: first choice first.
        deadline_ms: None where there is none.
        real_time: what the system permitted; None where nothing was asked.
    """

    request: StreamRequest
    bundle: Bundle
    source: FrameSource
    live: bool
    chain: Sequence[Segmenter]
    deadline_ms: float | None
    real_time: RealTime | None

    @property
    def period_ms(self) -> float:
        """Between two frames."""
        return 1e3 / (self.source.rate_hz or STILLS_HZ)

    @property
    def facts(self) -> StreamFacts:
        """For people."""
        return StreamFacts(
            bundle=self.bundle.path.name,
            source=self.source.name,
            rate_hz=self.source.rate_hz,
            deadline_ms=self.deadline_ms,
            classes=self.bundle.classes,
            chain=self._names,
            real_time=_permitted(self.real_time) if self.real_time else "",
        )

    @property
    def notes(self) -> list[str]:
        """What a person should know before it starts."""
        found = [f"left out of the chain: {name}: {reason}" for name, reason in self.chain[0].skipped.items()]
        if self.real_time:
            found.append("; ".join([f"real time: {_permitted(self.real_time)}", *self.real_time.refused]))
        return found

    def document(self) -> dict[str, Any]:
        """For programs; see docs/json.md."""
        return {
            "bundle": self.bundle.path.name,
            "source": self.request.source,
            "rate_hz": self.source.rate_hz,
            "deadline_ms": self.deadline_ms,
            "classes": list(self.bundle.classes),
            "chain": self._names,
            "skipped": dict(self.chain[0].skipped),
            "threads": self.request.threads,
            "isolated": self.request.isolate,
            "real_time": _real_time_document(self.real_time) if self.real_time else None,
            "board": describe(),
        }

    @property
    def _names(self) -> list[str]:
        return [f"{s.artifact.name} on {s.runtime} {s.device}" for s in self.chain]


def open_setup(stack: ExitStack, request: StreamRequest, *, loop: bool, lossless: bool = False) -> Setup:
    """Open the bundle, the source and the engines; what is wrong with a source shows before the engines load.

    Raises:
        BundleError, BadInput, MissingDependency, InferenceError: what is asked for cannot be had.
        UsageError: a live source at another rate than its own.
    """
    # Imported here: `edgeseg stream --help` needs no runtime.
    from edgeseg.runtimes import realtime
    from edgeseg.runtimes.fallback import load_chain

    # Results and summary say what the log would.
    logging.getLogger("edgeseg").addHandler(logging.NullHandler())
    opened = open_bundle(request.bundle, trusted_keys=request.trusted or None)
    plan = planned(request.profile)
    source, live = _open_source(stack, request, loop=loop, lossless=lossless)
    # Before the engines, so that those in processes of their own inherit it.
    real_time = stack.enter_context(realtime.apply()) if request.real_time else None
    chain = load_chain(
        opened,
        request.links,
        threads=request.threads,
        isolate=request.isolate,
        self_test=request.self_test,
        plan=plan,
    )
    for segmenter in chain:
        stack.enter_context(segmenter)
    deadline_ms = request.deadline_ms
    if deadline_ms is None and not lossless:
        deadline_ms = 1e3 / (source.rate_hz or STILLS_HZ)
    # What is loaded stays: to go through all of it again for garbage would cost a frame.
    gc.collect()
    gc.freeze()
    stack.callback(gc.unfreeze)
    return Setup(request, opened, source, live, chain, deadline_ms, real_time)


def results(stream: Stream, signals: EndSignals) -> Iterator[StreamResult]:
    """The results of a stream; a signal ends the wait for the next one with KeyboardInterrupt."""
    while True:
        with signals.waiting():
            result = next(stream, None)
        if result is None:
            return
        yield result


def stand_back() -> None:
    """Have the calling thread, if it is a real-time one, give way to those that a result waits for.

    It stays a real-time one: without, it could hold Python's lock while CPU hogs have its processor.
    """
    with contextlib.suppress(OSError):
        if os.sched_getparam(0).sched_priority > 1:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _open_source(stack: ExitStack, request: StreamRequest, *, loop: bool, lossless: bool) -> tuple[FrameSource, bool]:
    """The source, and whether it is live by itself: files are replayed at a rate, or read as fast as they can be."""
    from edgeseg.sources import open_source, paced

    source = stack.enter_context(open_source(request.source))
    if source.live:
        if request.rate_hz is not None:
            raise click.UsageError(f"--fps is for files, {source.name} is live: ask it, as in camera:0?fps=30")
        return source, True
    if lossless and not loop and request.rate_hz is None:
        return source, False
    return stack.enter_context(paced(source, request.rate_hz or source.rate_hz or STILLS_HZ, loop)), False


def _permitted(found: RealTime) -> str:
    scheduler = f"{found.scheduler} {found.priority}" if found.priority else found.scheduler
    return f"{scheduler}, memory {'locked' if found.memory_locked else 'not locked'}"


def _real_time_document(found: RealTime) -> dict[str, Any]:
    names = ("scheduler", "priority", "memory_locked", "cpus", "refused")
    return {name: getattr(found, name) for name in names}
