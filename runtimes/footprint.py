"""What loading one artifact costs, measured in a process of its own: `python -m edgeseg.runtimes.footprint`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from edgeseg import plugins
from edgeseg.bundle import read_model
from edgeseg.engine_options import Options
from edgeseg.errors import InferenceError
from edgeseg.manifest import decode_artifact, encode_artifact
from edgeseg.types import Artifact

_TIMEOUT_S = 300
_RUNS = 3


@dataclass(frozen=True, slots=True)
class Footprint:
    """Cost of an artifact in a fresh process.

    Attributes:
        load_ms: from the files, which are checked, to a session; the engine is already imported.
        first_ms: the first run, which some engines prepare themselves in.
        peak_memory_mb: largest resident set of the whole process, Python and engine included, in 10^6 bytes; None
            where the system does not tell.
    """

    load_ms: float
    first_ms: float
    peak_memory_mb: float | None


def measure_footprint(
    artifact: Artifact, runtime: str, device: str, threads: int | None, options: Options | None = None
) -> Footprint:
    """Load and run an artifact in a child process. Raises InferenceError where the child fails or takes too long."""
    command = [sys.executable, "-m", __name__, runtime, device, str(threads or 0), json.dumps(dict(options or {}))]
    described = encode_artifact(artifact)
    try:
        done = subprocess.run(command, input=described, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InferenceError(f"{artifact.name} on {runtime}: no result within {_TIMEOUT_S} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last = (said or [f"exit code {done.returncode}"])[-1]
        raise InferenceError(f"{artifact.name} on {runtime} failed in a process of its own: {last}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def _main(runtime: str, device: str, threads: str, options: str) -> None:
    told = {"device": device, "threads": int(threads) or None, "options": json.loads(options)}
    artifact = decode_artifact(sys.stdin.buffer.read())
    engine = plugins.runtime(runtime)
    engine.version()  # imports the engine, so that its import is not counted as loading
    start = perf_counter()
    with engine.load(read_model(artifact), **told) as session:
        loaded = perf_counter()
        feeds = {spec.name: np.full(spec.shape, 127, spec.dtype) for spec in session.inputs}
        session.run(feeds)
        first = perf_counter()
        for _ in range(_RUNS):
            session.run(feeds)
    print(json.dumps(asdict(Footprint((loaded - start) * 1e3, (first - loaded) * 1e3, _peak_memory_mb()))))


def _peak_memory_mb() -> float | None:
    # Not getrusage: its maximum is inherited from the process that started this one.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 / 1e6 if found else None


if __name__ == "__main__":
    _main(*sys.argv[1:])
