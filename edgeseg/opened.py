"""One-file bundles opened where they are: unpacked into a private folder that goes when the process ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from edgeseg.bundle import open_trusted
from edgeseg.durable import locked, os_errors
from edgeseg.transport import extract
from edgeseg.trust import Trusted
from edgeseg.types import Bundle

_PREFIX, _SUFFIX = "edgeseg-", ".opened"
_ABANDONED_AFTER_S = 60.0

_opening = threading.Lock()
_opened: dict[tuple[int, ...], Path] = {}


def open_packed(file: Path, trusted: Trusted | None) -> Bundle:
    """Open the one-file form of a bundle; where keys are given, one of them must have signed it.

    Opened again by this process, it is checked again but not unpacked again. Its folder is in the system's temporary
    folder (TMPDIR); where that is too small, or the process lives for months, `edgeseg unpack` to a place of your own.

    Raises:
        SignatureError: as `edgeseg.open_bundle`.
        BundleError: not a packed bundle, damaged, cut short or hostile, or no room to unpack it.
        BundleTooNew: written by a newer edgeseg.
    """
    with os_errors(f"{file} cannot be unpacked"), _opening:
        status = file.stat()
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        folder = _opened.get(key)
        if folder is not None and folder.is_dir():
            return open_trusted(folder, trusted)
        bundle = _unpacked(file, trusted)
        _opened[key] = bundle.path
        return bundle


def _unpacked(file: Path, trusted: Trusted | None) -> Bundle:
    _clear_abandoned()
    private = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX))
    held = contextlib.ExitStack()
    held.enter_context(locked(private))
    held.callback(shutil.rmtree, private, ignore_errors=True)
    try:
        folder = private / file.name
        folder.mkdir()
        bundle = extract(file, folder, trusted)
    except BaseException:
        held.close()
        raise
    atexit.register(_remove, held, os.getpid())
    return bundle


def _remove(held: contextlib.ExitStack, owner: int) -> None:
    if os.getpid() == owner:  # and not a child that was forked from it
        held.close()


def _clear_abandoned() -> None:
    """Remove the folders of processes that were killed; one that was just made may not have its lock yet."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            mine = folder.is_dir() and not folder.is_symlink() and folder.lstat().st_uid == os.geteuid()
            if mine and time.time() - folder.lstat().st_mtime > _ABANDONED_AFTER_S:
                with locked(folder):
                    shutil.rmtree(folder)
