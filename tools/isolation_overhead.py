"""What an engine in a process of its own costs for each frame: the same artifact here and there, in turns.

    python tools/isolation_overhead.py head.edgeseg

Every turn runs both once, so that whatever else the machine does hits both alike. The figure is the difference of the
medians; of several repetitions the one with the smallest is the least disturbed, and all are printed. Masks have to be
equal, or this fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from edgeseg import plugins
from edgeseg.bundle import open_bundle
from edgeseg.runtimes.opening import open_session
from edgeseg.types import Array, Artifact, Bundle, Precision, Session

WARM_UPS = 20
TARGET_MS = 0.2


def measure(
    bundle: Bundle, artifact: Artifact, turns: int, repetitions: int, pause_s: float
) -> list[tuple[float, ...]]:
    """Medians in ms, here and there, of each repetition."""
    runtime = plugins.ENGINE_OF[artifact.format]
    with (
        open_session(bundle, artifact, runtime, device="cpu", threads=1) as here,
        open_session(bundle, artifact, runtime, device="cpu", threads=1, isolate=True) as there,
    ):
        spec = here.inputs[0]
        feeds = {spec.name: np.random.default_rng(0).uniform(0, 255, spec.shape).astype(spec.dtype)}
        for _ in range(WARM_UPS):
            expected, found = here.run(feeds), there.run(feeds)
        if not all(np.array_equal(expected[name], found[name]) for name in expected):
            sys.exit(f"{artifact.name}: the isolated engine gave other values")
        return [_medians((here, there), feeds, turns, pause_s) for _ in range(repetitions)]


def _medians(
    sessions: tuple[Session, Session], feeds: dict[str, Array], turns: int, pause_s: float
) -> tuple[float, ...]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for session, found in zip(sessions, times, strict=True):
            time.sleep(pause_s)
            start = time.perf_counter()
            session.run(feeds)
            found.append((time.perf_counter() - start) * 1e3)
    return tuple(median(found) for found in times)


def main() -> None:
    """Print a table; exit 1 where an int8 artifact is above the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each run, as between frames")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    print(f"p50 ms, 1 thread, {arguments.turns} turns, best of {arguments.repetitions}")
    print(f"{'artifact':14} {'here':>7} {'isolated':>9} {'overhead':>9}   all")
    late = []
    for artifact in bundle.artifacts:
        found = measure(bundle, artifact, arguments.turns, arguments.repetitions, arguments.pause)
        overheads = sorted(there - here for here, there in found)
        here, there = min(found, key=lambda pair: pair[1] - pair[0])
        everything = " ".join(f"{o:.3f}" for o in overheads)
        print(f"{artifact.name:14} {here:7.3f} {there:9.3f} {there - here:9.3f}   {everything}", flush=True)
        if artifact.precision is Precision.INT8 and overheads[0] > TARGET_MS:
            late.append(artifact.name)
    if late:
        sys.exit(f"above {TARGET_MS} ms: {', '.join(late)}")


if __name__ == "__main__":
    main()
