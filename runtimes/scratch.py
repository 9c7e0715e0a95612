"""The one folder that an isolated engine may write into: it goes with its process, or is cleared by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from edgeseg.durable import locked

_PREFIX = "edgeseg-engine-"
_FRESH_S = 60.0


def new_scratch() -> tuple[str, tuple[int, ...]]:
    """A folder for this user only, and the descriptor of a lock on it, which ends with this process.

    ("", ()) where there is no place for one, and then execution() fails.
    """
    try:
        _clear_remains(Path(tempfile.gettempdir()))
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return "", ()
    return folder, (descriptor,)


def _clear_remains(temporary: Path) -> None:
    """Remove the folders of processes that were killed: those that are not locked, and not being made right now."""
    for folder in temporary.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _FRESH_S:
                with locked(folder):
                    shutil.rmtree(folder)
