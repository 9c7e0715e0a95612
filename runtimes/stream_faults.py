"""Engines that fail when told to: for tests of what a stream, and the application around it, do then."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from enum import StrEnum
from threading import Event

import numpy as np

from edgeseg.errors import BadInput, InferenceError
from edgeseg.evidence import Execution
from edgeseg.runtimes.isolated import IsolatedSession
from edgeseg.runtimes.segmenter import Abortable, Segmenter
from edgeseg.types import Array, Session, TensorSpec

_LONGEST_HANG_S = 60.0


class Fault(StrEnum):
    """How an engine fails: `SEGFAULT` is a real signal to the process of an isolated one."""

    EXCEPTION = "exception"
    HANG = "hang"
    NAN = "NaN"
    SHAPE = "shape"
    SEGFAULT = "SIGSEGV"


class FaultySession:
    """A session that does what the one inside it does, until it is given a fault, and with `repair` again.

        engine = FaultySession.inside(segmenter)
        engine.fault = Fault.NAN        # every run from now on

    Attributes:
        fault: how every run fails; None for not at all.
        delay_s: how long every run takes in addition.
    """

    def __init__(self, session: Session) -> None:
        self.fault: Fault | None = None
        self.delay_s = 0.0
        self._session = session
        self._released = Event()

    @classmethod
    def inside(cls, segmenter: Segmenter) -> FaultySession:
        """Put one between a segmenter and its session."""
        faulty = cls(segmenter._session)
        segmenter._session = faulty
        return faulty

    def remove(self, segmenter: Segmenter) -> None:
        """Take it out of a segmenter again."""
        self.repair()
        segmenter._session = self._session

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of the session inside."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Of the session inside."""
        return self._session.outputs

    @property
    def device(self) -> str:
        """Of the session inside."""
        return self._session.device

    def feeds(self) -> Mapping[str, Array]:
        """Of the session inside."""
        return self._session.feeds()

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once, and fail as told."""
        fault = self.fault
        if self.delay_s:
            self._released.wait(self.delay_s)
        if fault is Fault.EXCEPTION:
            raise InferenceError("an injected failure")
        if fault is Fault.HANG:
            self._released.wait(_LONGEST_HANG_S)
        if fault is Fault.SEGFAULT:
            self._kill()
        outputs = self._session.run(feeds)
        if fault is Fault.NAN:
            return {name: _spoiled(array) for name, array in outputs.items()}
        if fault is Fault.SHAPE:
            return {name: array[..., : array.shape[-1] // 2] for name, array in outputs.items()}
        return outputs

    def repair(self) -> None:
        """Fail no more; runs that hang go on."""
        self.fault = None
        self.delay_s = 0.0
        self._released.set()
        self._released = Event()

    def abort(self) -> None:
        """End the one inside, where that can be."""
        if isinstance(self._session, Abortable):
            self._session.abort()
            self._released.set()

    def execution(self) -> Execution:
        """Of the session inside."""
        return self._session.execution()

    def close(self) -> None:
        """Close the session inside."""
        self.repair()
        self._session.close()

    def __enter__(self) -> FaultySession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _kill(self) -> None:
        if not isinstance(self._session, IsolatedSession):
            raise BadInput("only an engine in a process of its own survives SIGSEGV: load it with isolate=True")
        os.kill(self._session.pid, signal.SIGSEGV)


def _spoiled(array: Array) -> Array:
    copy = array.copy()
    copy.flat[copy.size // 2] = np.nan
    return copy
