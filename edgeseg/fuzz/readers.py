"""Mutated manifests, golden frames and transport files with nobody checking hashes, given to edgeseg's own readers."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from time import perf_counter

from edgeseg.fuzz.engines import LIMITS, LONGEST_S
from edgeseg.fuzz.mutations import Kind
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.parser import READERS
from edgeseg.fuzz.refusals import mutations
from edgeseg.fuzz.workbench import Workbench

KINDS = tuple(READERS)
_CRASHED, _TIMED_OUT = "child crashed", "child timed out"


def try_reader(bench: Workbench, kind: Kind, count: int, seed: int, advance: Callable[[], None]) -> Outcomes:
    """Give `count` mutations of one kind to its reader, in a process of its own with the limits of an engine.

    A typed error or a result is what must come of each; a crash or a timeout is a miss here, because these readers run
    in the process of whoever uses edgeseg.
    """
    outcomes = Outcomes("readers", kind)
    with tempfile.TemporaryDirectory() as folder:
        reader = _Reader(kind, folder)
        try:
            for change in mutations(bench, kind, count, seed):
                if not reader.alive:
                    reader = _Reader(kind, folder)
                start = perf_counter()
                outcome = reader.read(change.data, LIMITS.load_s)
                seconds = perf_counter() - start
                bad = outcome not in ("typed error", "a result") or seconds > LONGEST_S
                name, _, _ = outcome.partition(":")
                outcomes.add(name, seconds, f"{change.what}: {outcome}, {seconds:.1f} s" if bad else None)
                advance()
        finally:
            reader.close()
    return outcomes


class _Reader:
    """The process that reads."""

    def __init__(self, kind: Kind, folder: str) -> None:
        command = [sys.executable, "-m", "edgeseg.fuzz.parser", kind, folder, str(LIMITS.memory_mb)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    @property
    def alive(self) -> bool:
        """Whether it can be given more."""
        return self._process.poll() is None

    def read(self, data: bytes, limit_s: float) -> str:
        """What came of a content; the process is gone after a crash or a timeout."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(struct.pack("<Q", len(data)) + data)
            self._process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return _CRASHED
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            self.close()
            return _TIMED_OUT
        answer = self._process.stdout.readline().decode().strip()
        if not answer:
            self.close()
            return f"{_CRASHED}: {self._process.returncode}"
        return answer

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
