"""Run a hostile case in a process of its own, with an eye on its time, memory, words and what it touches."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

from edgeseg.fuzz.corpus import SECRET, Case, Scene

_POLL_S = 0.02
_GRACE_S = 1.0
_MB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Of the whole process tree. A conversion imports torch before it reads its source and gives ONNX Runtime 1.5 GB; verify
# gives an isolated engine 1 GB; the largest picture that is allowed takes run 0.9 GB.
MEMORY_MB = {"convert": 3000, "verify": 1500, "run": 1000}
OTHER_MEMORY_MB = 600


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a case did.

    Attributes:
        code: the exit code; negative for a signal.
        seconds: until it ended.
        memory_mb: the most that it and its children had resident together.
        said: the last lines of what it printed.
        faults: what it must not do and did; empty for a case that passed.
    """

    code: int
    seconds: float
    memory_mb: float
    said: str
    faults: tuple[str, ...]


def watch(case: Case, scene: Scene) -> Sighting:
    """Make a case and feed it to `edgeseg`.

    It passes where edgeseg ends by itself within the deadline (and a second), with exit code 1 or 2 and one line that
    begins with "error:" (verify tells in its table what failed instead), without a traceback, within its memory, and
    neither made the canary nor told the secret.
    """
    arguments = case.make(scene)
    with tempfile.TemporaryFile() as output:
        start = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeseg.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=scene.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        limit_mb = MEMORY_MB.get(arguments[0], OTHER_MEMORY_MB)
        peak_mb, stopped = _follow(process, start + case.deadline_s + _GRACE_S, limit_mb)
        seconds = perf_counter() - start
        output.seek(0)
        said = output.read().decode(errors="replace")
    faults = (*stopped, *_faults(case, scene, process.returncode, said))
    return Sighting(process.returncode, seconds, peak_mb, " ".join(said.split())[-300:], faults)


def _follow(process: subprocess.Popen[bytes], until: float, limit_mb: float) -> tuple[float, tuple[str, ...]]:
    """Wait for a process; kill it and its children when they take too much. Their peak, and why they were killed."""
    peak_mb = 0.0
    while process.poll() is None:
        peak_mb = max(peak_mb, tree_memory_mb(process.pid))
        late = perf_counter() > until
        if late or peak_mb > limit_mb:
            _kill(process)
            return peak_mb, ("did not end in time" if late else f"took more than {limit_mb} MB",)
        sleep(_POLL_S)
    return peak_mb, ()


def tree_memory_mb(root: int) -> float:
    """Resident memory of a process and all its descendants, in MiB."""
    parents = {int(p.name): _stat(p) for p in Path("/proc").iterdir() if p.name.isdecimal()}
    family = {root}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sum(parents.get(pid, (0, 0))[1] for pid in family) * _PAGE / _MB


def _stat(process: Path) -> tuple[int, int]:
    """Parent and resident pages; zeros where it is gone."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[21])


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _faults(case: Case, scene: Scene, code: int, said: str) -> tuple[str, ...]:
    errors = len(re.findall(r"^error: ", said, re.MULTILINE))
    ended = code in (1, 2) and errors <= 1
    found = {
        f"ended with {code} and {errors} lines of error": not ended and not (case.harmless and code == 0),
        "printed a traceback": "Traceback (most recent call last)" in said,
        "told the secret": SECRET in said or _written(scene),
        "made the canary": os.path.lexists(scene.canary) or os.path.lexists(scene.folder.parent / "escaped"),
    }
    return tuple(name for name, is_so in found.items() if is_so)


def _written(scene: Scene) -> bool:
    """Whether the secret stands in what was written."""
    return scene.out.is_dir() and any(SECRET.encode() in p.read_bytes() for p in scene.out.rglob("*") if p.is_file())
