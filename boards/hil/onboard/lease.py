"""Holds a board for one runner: a locked file, for as long as this process lives and hears from the runner.

The first line on standard output says whether the board was got, or who has it. The kernel lets go of the lock when
this process ends, however it ends; what the file says is for people. A file that is not in its place any more holds
nothing, another runner would lock the next one: then this process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
import time
from typing import Any


def main(request: str) -> None:
    """Take what the request says: `path`, `holder` (written into the file), `silence_s`."""
    asked = json.loads(request)
    path = asked["path"]
    try:
        file = _lock(path)
    except OSError as error:
        _say({"held": False, "error": f"{path}: {error.strerror}"})
        return
    except _Taken as taken:
        _say({"held": False, "holder": taken.holder})
        return
    _write(file, asked)
    _say({"held": True, "boot_id": _boot_id()})
    try:
        _hold(file, asked)
    finally:
        _truncate(file)


def _hold(file: int, asked: dict[str, Any]) -> None:
    """Return when the runner hangs up; exit with the reason where the board is lost otherwise."""
    while select.select([0], [], [], asked["silence_s"])[0]:
        if not os.read(0, 4096):
            return
        if not _is_at(file, asked["path"]):
            sys.exit(f"the lease file {asked['path']} was removed or replaced")
        _write(file, asked)
    sys.exit(f"nothing was heard of the runner for {asked['silence_s']:g} s")


class _Taken(Exception):
    def __init__(self, holder: object) -> None:
        self.holder = holder


def _lock(path: str) -> int:
    """The file, locked. Raises OSError, or _Taken with what the file says of who has it."""
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Taken(_read(file)) from None
        if _is_at(file, path):
            return file
        os.close(file)


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    os.umask(0)
    try:
        # Without O_CREAT first: the kernel refuses that for files of others in folders such as /tmp.
        return os.open(path, flags)
    except FileNotFoundError:
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return os.open(path, flags)


def _write(file: int, asked: dict[str, Any]) -> None:
    """Who has it, and until when at the latest. A full disk does not matter: the lock holds without."""
    content = {**asked["holder"], "expires_unix": time.time() + asked["silence_s"]}
    try:
        os.pwrite(file, json.dumps(content).encode().ljust(512), 0)
    except OSError:
        _truncate(file)


def _read(file: int) -> object:
    try:
        return json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return None


def _truncate(file: int) -> None:
    try:
        os.ftruncate(file, 0)
    except OSError:
        pass


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
