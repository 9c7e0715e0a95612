"""Processes that do nothing but burn a core each: the load beside which a stream has to keep its deadlines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# They end with the process that started them, whatever ends it.
_BURN = """\
import sys
from edgeseg.runtimes.sandbox import die_with_parent
die_with_parent(int(sys.argv[1]))
while True: pass
"""


class CpuHogs:
    """A number of CPU hogs; a context manager, in the thread that lives longest."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Of all that were started."""
        return tuple(process.pid for process in self._processes)

    @property
    def lost(self) -> int:
        """How many have ended."""
        return sum(process.poll() is not None for process in self._processes)

    def __enter__(self) -> CpuHogs:
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        command = [sys.executable, "-P", "-c", _BURN, str(os.getpid())]
        for _ in range(self._count):
            # A session of its own: Ctrl-C is for the command alone.
            self._processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": path},
                    start_new_session=True,
                )
            )
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
