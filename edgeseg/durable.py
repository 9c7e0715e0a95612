"""Files and folders that appear whole or not at all, whatever kills their writer: a signal, a full disk, lost power."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeseg.errors import BundleError
from edgeseg.manifest import MANIFEST

_PART, _OLD = ".part", ".old"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@contextlib.contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """A staging folder that becomes the bundle folder `path` when the block ends well, and vanishes otherwise.

    Every file and folder is fsynced, then one rename makes the result visible: neither a kill nor a power cut leaves
    half of it behind. An older bundle at `path` is replaced, by an exchange of the two names where the file system has
    one (Linux: ext4, xfs, btrfs, f2fs, tmpfs), so that there is a bundle at every moment; anything else there is
    refused. Staging folders of writers that were killed are removed.

    Raises:
        BundleError: where `path` exists and is not a bundle.
        OSError: where the parent cannot be written.
    """
    target = Path(path).absolute()
    check_target(target)
    with _staging(target) as staging:
        staging.chmod(0o755)
        yield staging
        _fsync_tree(staging)
        _put_in_place(staging, target)


@contextlib.contextmanager
def new_file(path: Path | str, beside: Path | None = None) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends well, as whole and as durable as a `new_folder`.

    It is written beside `path`, or beside the bundle folder that `path` is in: there nothing else may lie at any time.

    Raises OSError where the parent cannot be written.
    """
    target = Path(path).absolute()
    with _staging(beside or target) as staging:
        part = staging / target.name
        with part.open("xb") as stream:
            yield stream
        fsync(part)
        part.replace(target)
        fsync(target.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a small file that is there as a whole or not at all. Raises OSError where its folder cannot be written."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    fsync(part)
    part.replace(path)


def check_target(path: Path | str) -> None:
    """Raise BundleError unless a bundle may be written to `path`: nothing is there, or an older bundle."""
    target = Path(path)
    if target.exists() and not (target / MANIFEST).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise BundleError(f"{target} exists and is not a bundle: choose another -o, or remove it first")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends. Raises BlockingIOError where another one has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Turn an OSError into a BundleError that begins with `what`."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise BundleError(f"{what}: {error.strerror or error}{where}") from error


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write in, gone when the block ends unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(target)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_PART, dir=target.parent))
    try:
        with locked(staging):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _clear_remains(target: Path) -> None:
    """Remove what killed writers left; put the older bundle back where the kill came between two renames."""
    for folder in target.parent.iterdir():
        if not (folder.name.startswith(f".{target.name}.") and folder.suffix in (_PART, _OLD) and folder.is_dir()):
            continue
        with contextlib.suppress(OSError), locked(folder):
            if folder.suffix == _OLD and not target.exists():
                (folder / "bundle").rename(target)
            shutil.rmtree(folder)


def _put_in_place(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        _swap(staging, target)
    # After an exchange the older bundle has the name of the staging folder, which goes.
    fsync(target.parent)


def _exchange(staging: Path, target: Path) -> bool:
    """Give each the other's name, at once; False where the C library or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(staging), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(target))


def _swap(staging: Path, target: Path) -> None:
    """Two renames, the first writer after a kill in between puts the older bundle back."""
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_OLD, dir=target.parent))
    with locked(old):
        target.rename(old / "bundle")
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _fsync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            fsync(Path(folder) / name)
        fsync(Path(folder))


def fsync(path: Path) -> None:
    """Have a file or a folder on the disk before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
