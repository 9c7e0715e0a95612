"""A small process that starts writers of bundles and kills them: python -m edgeseg.fuzz.writer OPERATION TARGET KEY.

For each line of standard input, a delay in seconds (negative for none) and a source, a writer is forked and killed
(SIGKILL) after that time. The answer is a line too: how it ended (0 by itself, 9 killed, else failed) and how many
seconds it took. It is a process of its own because a fork must not take the threads of engines along.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edgeseg.durable import new_folder
from edgeseg.install import install
from edgeseg.transport import unpack

Operation = Callable[[Path, Path, Path], object]


def _write(source: Path, target: Path, key: Path) -> None:
    with new_folder(target) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True)


OPERATIONS: dict[str, Operation] = {
    "write": _write,
    "unpack": lambda source, target, key: unpack(source, target),
    "install": lambda source, target, key: install(source, target, trusted_keys=key, allow_older=True),
}


def main() -> None:
    """Serve until standard input ends."""
    operation, target, key = OPERATIONS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    for line in sys.stdin:
        delay, _, source = line.rstrip("\n").partition(" ")
        start = time.perf_counter()
        writer = os.fork()
        if writer == 0:
            _be_a_writer(operation, Path(source), target, key)
        if float(delay) >= 0:
            time.sleep(float(delay))
            os.kill(writer, signal.SIGKILL)  # which a process that ended but was not waited for does not mind
        status = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
        print(abs(status), time.perf_counter() - start, flush=True)


def _be_a_writer(operation: Operation, source: Path, target: Path, key: Path) -> None:
    code = 1
    try:
        operation(source, target, key)
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
