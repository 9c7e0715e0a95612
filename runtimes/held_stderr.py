"""What an engine writes to file descriptor 2: held back from the terminal, and read where it tells a reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

_ONE_AT_A_TIME = Lock()  # descriptor 2 is the whole process's


@contextmanager
def held_stderr() -> Iterator[Callable[[], str]]:
    """Hold back whatever this process writes to descriptor 2, and yield what reads it so far.

    Engines greet and complain there and have no switch for it, or none that leaves their reasons.
    """
    with _ONE_AT_A_TIME:
        sys.stderr.flush()
        saved, memory = os.dup(2), os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            os.dup2(memory, 2)
            yield lambda: os.pread(memory, os.fstat(memory).st_size, 0).decode(errors="replace")
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(memory)
