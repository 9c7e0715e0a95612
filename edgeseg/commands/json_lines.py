"""JSON lines for programs: each whole or not there at all, at once and not when a buffer is full."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from edgeseg.errors import BadInput

STANDARD_OUTPUT = "-"
_encode = msgspec.json.Encoder().encode


class JsonLines:
    """Writes one object a line to a file or to standard output; a context manager.

    A pipe that nobody reads fills up: then `write` waits, as long as it is told to. Where that ends within a line, no
    other one follows it.
    """

    def __init__(self, target: str) -> None:
        """Open "-" for standard output, or a file, which is begun anew.

        Raises:
            BadInput: the file cannot be written.
        """
        self._torn = False
        self._owned = target != STANDARD_OUTPUT
        if not self._owned:
            sys.stdout.flush()
        try:
            self._descriptor = (
                os.open(Path(target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
                if self._owned
                else sys.stdout.fileno()
            )
        except OSError as error:
            raise BadInput(f"{target} cannot be written: {error.strerror or error}") from error

    def write(self, record: dict[str, Any], patience_s: float | None = None) -> bool:
        """Write a line. False where the reader did not make room for it within `patience_s` (None: no limit).

        Raises:
            OSError: as any write.
        """
        line = memoryview(_encode(record) + b"\n")
        end_s = None if patience_s is None else time.monotonic() + patience_s
        # Up to PIPE_BUF bytes go into a pipe together: a signal while it waits leaves no half line.
        for start in range(0, len(line), select.PIPE_BUF):
            if self._torn or not self._room(end_s):
                self._torn |= start > 0
                return False
            self._write(line[start : start + select.PIPE_BUF])
        return True

    def _room(self, end_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        left = None if end_s is None else max(0.0, end_s - time.monotonic()) * 1e3
        return bool(poll.poll(left))

    def _write(self, part: memoryview) -> None:
        while part:
            part = part[os.write(self._descriptor, part) :]

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            os.close(self._descriptor)
