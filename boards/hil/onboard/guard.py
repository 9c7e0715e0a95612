"""Runs one command on a board and sees to its end: at its time limit, and when nobody listens any more.

Standard input carries heartbeats. When it ends, or is silent for too long, the runner or the connection is gone: the
command and everything it started are killed. After the command's own output comes a record separator and how it ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

_SUBREAPER = 36  # prctl: orphans below become ours, so that none escapes by a session of its own
_DEATH_SIGNAL = 1
_ROUND_S = 0.01


def main(request: str) -> None:
    """Run what the request says: `command`, `timeout_s`, `silence_s`, and `fetch`, files to tell the content of."""
    asked = json.loads(request)
    library = ctypes.CDLL(None)
    library.prctl(_SUBREAPER, 1, 0, 0, 0)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    start = time.monotonic()
    try:
        child = subprocess.Popen(
            asked["command"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: library.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0),
        )
    except OSError as error:
        _report({"ended": "not started", "reason": error.strerror, "rc": 127, "seconds": 0.0})
        return
    ended = _wait(child, wake, start + asked["timeout_s"], asked["silence_s"])
    seconds = time.monotonic() - start
    _kill_all()
    files = {path: _text(path) for path in asked["fetch"]}
    _report({"ended": ended, "rc": child.poll() if ended == "exit" else -9, "seconds": seconds, "files": files})


def _wait(child: subprocess.Popen[bytes], wake: int, end: float, silence: float) -> str:
    heard = time.monotonic()
    while True:
        if child.poll() is not None:
            return "exit"
        now = time.monotonic()
        if now >= end:
            return "timeout"
        if now >= heard + silence:
            return "silence"
        ready = select.select([0, wake], [], [], min(end, heard + silence) - now)[0]
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            if not os.read(0, 4096):
                return "hung up"
            heard = time.monotonic()


def _kill_all() -> None:
    """Kill descendants until none is left; those that were forked meanwhile are found in the next round."""
    while True:
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(_ROUND_S)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    parent = int(stream.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def _report(end: dict[str, object]) -> None:
    try:
        sys.stdout.write("\x1e" + json.dumps(end) + "\n")
        sys.stdout.flush()
    except OSError:
        os._exit(1)  # nobody is there to be told


if __name__ == "__main__":
    main(sys.argv[1])
