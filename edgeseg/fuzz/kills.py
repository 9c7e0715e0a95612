"""Kill writers of bundles at random moments: what is at the target must be one of the two bundles, whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from edgeseg.bundle import open_bundle
from edgeseg.errors import BundleError, InferenceError
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.writer import OPERATIONS
from edgeseg.keys import new_key
from edgeseg.manifest import MANIFEST, SIGNATURE, seal
from edgeseg.signing import sign_bundle
from edgeseg.transport import SUFFIX, pack
from edgeseg.types import Bundle

_MEASURED = 5
_BEYOND = 1.2  # of an undisturbed writer's time, so that some kills come too late
_KILLED = 9
_FIRST_EVERY = 5  # so often there is no bundle at the target yet


class Writers:
    """The process that forks and kills writers of one kind."""

    def __init__(self, operation: str, target: Path, key: Path) -> None:
        command = [sys.executable, "-m", "edgeseg.fuzz.writer", operation, str(target), str(key)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def start(self, source: Path, delay_s: float) -> tuple[int, float]:
        """Let one write `source`; kill it after `delay_s`, never where that is negative.

        Returns how it ended (0, or 9 for killed) and after how many seconds. Raises InferenceError where the process
        itself is gone.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{delay_s} {source}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if len(answer) != 2:
            raise InferenceError(f"the process that starts writers ended with {self._process.wait()}: run it again")
        return int(answer[0]), float(answer[1])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def kill_writers(
    bundle: Bundle, operation: str, count: int, seed: int, folder: Path | None, advance: Callable[[], None]
) -> Outcomes:
    """Kill `count` writers, at moments spread evenly over what one of them takes.

    After each kill the bundle at the target is opened with its signature: it must be the one that was there or the
    one that was written, and where there was none, none or the one that was written. In the end one writer is left
    alone, and must have removed what all the killed ones left.

    Args:
        bundle: its content is what is written, in two versions that take turns.
        operation: "write", "unpack" or "install".
        count: of kills.
        seed: of the moments.
        folder: on the file system to try it on; the system's temporary folder by default.
        advance: called after each.

    Raises:
        InferenceError: writers fail that nobody killed.
    """
    outcomes = Outcomes("kills", operation)
    rng = random.Random(f"{seed} {operation}")
    with tempfile.TemporaryDirectory(prefix="edgeseg-kills-", dir=folder or _temporary_folder()) as name:
        root = Path(name)
        key = new_key("kills", root)
        sources = {v: _version(bundle, root, v, key, packed=operation == "unpack") for v in ("first", "second")}
        target = root / "place" / "head.edgeseg"
        writers = Writers(operation, target, key)
        try:
            whole_s = _undisturbed(writers, sources)
            outcomes.notes["undisturbed ms"] = round(1e3 * whole_s, 1)
            for index in range(count):
                there = _there(target, key)
                if index % _FIRST_EVERY == 0:
                    shutil.rmtree(target)
                    there = None
                coming = "first" if there == "second" else "second"
                start = perf_counter()
                status, _ = writers.start(sources[coming], rng.uniform(0, _BEYOND * whole_s))
                _judge(outcomes, status, target, key, there, coming, perf_counter() - start, index)
                advance()
                if not target.exists():
                    writers.start(sources["first"], -1)
            status, _ = writers.start(sources["first"], -1)
            remains = [p.name for p in target.parent.iterdir() if p != target]
            outcomes.notes["left over"] = len(remains)
            if status or remains:
                outcomes.miss(f"{operation}: the last writer ended with {status} and left {', '.join(remains)}")
        finally:
            writers.close()
    return outcomes


def _judge(
    outcomes: Outcomes, status: int, target: Path, key: Path, there: str | None, coming: str, seconds: float, index: int
) -> None:
    """Count what came of one kill."""
    begun = any(p != target for p in target.parent.iterdir())
    try:
        found = _there(target, key)
    except BundleError as error:
        outcomes.add("bad bundle", seconds, f"{outcomes.what}, kill {index}: {error}")
        return
    if found not in (there, coming) or status not in (0, _KILLED):
        outcomes.add("bad bundle", seconds, f"{outcomes.what}, kill {index}: {found} is there, writer ended {status}")
    elif status == 0:
        outcomes.add("too late", seconds)
    elif found == coming:
        outcomes.add("killed, the new one is there", seconds)
    else:
        outcomes.add("killed while writing, as before" if begun else "killed before writing, as before", seconds)


def _there(target: Path, key: Path) -> str | None:
    """Which version is at the target, None where nothing is; it is opened with all checks."""
    return open_bundle(target, trusted_keys=key).manifest.name if os.path.lexists(target) else None


def _undisturbed(writers: Writers, sources: dict[str, Path]) -> float:
    """The fewest seconds of a writer that nobody kills, after a first one that everything waits for."""
    taken = []
    for index in range(_MEASURED):
        status, seconds = writers.start(sources["first" if index % 2 else "second"], -1)
        if status:
            raise InferenceError(f"a writer failed that nobody had killed, with exit code {status}: see above")
        taken.append(seconds)
    return min(taken[1:])


def _version(bundle: Bundle, root: Path, name: str, key: Path, *, packed: bool) -> Path:
    """A copy of a bundle that calls itself `name`, signed; its folder or its one-file form."""
    folder = root / f"{name}.edgeseg"
    shutil.copytree(bundle.path, folder)
    content = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(seal({**content, "name": name}))
    (folder / SIGNATURE).unlink(missing_ok=True)
    sign_bundle(folder, key.with_suffix(".key"))
    if not packed:
        return folder
    file = root / f"{name}{SUFFIX}"
    pack(open_bundle(folder, trusted_keys=key), file)
    return file


def _temporary_folder() -> str:
    """The system's, whatever this process uses meanwhile: durable writing is about a disk."""
    return os.environ.get("TMPDIR") or "/tmp"


KINDS = tuple(OPERATIONS)
