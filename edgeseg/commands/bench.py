"""`edgeseg bench`: speed and accuracy of every artifact on this machine, interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import msgspec
import numpy as np

from edgeseg.bundle import open_bundle
from edgeseg.commands.candidates import Candidate, load_candidates, torch_candidates
from edgeseg.commands.measuring import (
    compare_candidates,
    evaluation_frames,
    fill_execution,
    measuring_options,
)
from edgeseg.commands.profile_plan import planned, profile_option, unverified
from edgeseg.commands.progress import progress
from edgeseg.commands.rows import Report, fastest, intervals, print_rows, ratios
from edgeseg.dataset import FrameFolder
from edgeseg.durable import write_file
from edgeseg.engine_options import Plan
from edgeseg.errors import BadInput, EdgesegError
from edgeseg.evidence import Latency
from edgeseg.golden import read_frame
from edgeseg.preprocess import to_input
from edgeseg.types import Array, Bundle, Frame

_FRAMES = 16
_TELEMETRY_HZ = 10.0


@click.command(
    epilog="Example: edgeseg bench head.edgeseg --threads 1; with accuracy and torch itself: "
    "edgeseg bench head.edgeseg --data frames --source head.safetensors --json bench.json"
)
@click.argument("bundle", type=click.Path(path_type=Path))
@measuring_options
@profile_option
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=30, show_default=True, help="Turns of each candidate.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed runs a turn, after an untimed one."
)
@click.option("--samples", type=click.Path(path_type=Path), metavar="FILE", help="Write every single time as JSON too.")
def bench(
    bundle: Path,
    data: Path | None,
    split: str | None,
    runtimes: tuple[str, ...],
    device: str,
    profile: str | None,
    threads: int,
    rounds: int,
    repeats: int,
    samples: Path | None,
    json_path: Path | None,
    source: str | None,
    **options: Any,
) -> int:
    """Measure every artifact of BUNDLE on every runtime present.

    The candidates take turns, so that drift of the machine hits all alike. Times are of the engine alone, on frames at
    the network's size; "with frame" is frame in to mask out. Load time and peak memory come from a process for each.
    """
    return bench_bundle(
        open_bundle(bundle),
        name=str(bundle),
        data=data,
        split=split,
        runtimes=runtimes,
        device=device,
        threads=threads,
        rounds=rounds,
        repeats=repeats,
        samples=samples,
        json_path=json_path,
        source=source,
        options=options,
        plan=planned(profile),
    )


def bench_bundle(
    bundle: Bundle,
    *,
    name: str | None = None,
    data: Path | None = None,
    split: str | None = None,
    runtimes: Sequence[str] = (),
    device: str = "auto",
    threads: int = 1,
    rounds: int = 30,
    repeats: int = 5,
    samples: Path | None = None,
    json_path: Path | None = None,
    source: str | None = None,
    options: dict[str, Any] | None = None,
    plan: Plan = (),
) -> int:
    """Measure and print; the exit code is 1 where an artifact failed. The arguments are those of the command.

    `plan` is what --profile comes to.
    """
    from edgeseg.boards.detect import describe
    from edgeseg.boards.sampler import Sampler
    from edgeseg.boards.telemetry import Telemetry

    with load_candidates(bundle, runtimes, device, threads, plan=plan) as (candidates, missing):
        report = Report(name or str(bundle.path), describe())
        baselines = torch_candidates(source, options or {}, bundle, threads) if source else []
        compare_candidates(bundle, candidates, baselines, report, data, split)
        candidates += baselines
        frames = timing_frames(bundle, data, split)
        with Telemetry() as telemetry, Sampler(telemetry, _TELEMETRY_HZ) as sampler:
            measure_latency(candidates, frames, rounds, repeats)
        report.telemetry = msgspec.to_builtins(sampler.summary())
        fill_execution(candidates)
    measure_footprints(candidates)
    report.rows += missing
    if json_path:
        report.write(json_path)
    if samples:
        write_samples(samples, candidates)
    how = "as its profile says" if plan else f"{threads} thread(s)"
    print_rows(f"{bundle.manifest.name} on {report.board}, {how}, against {report.reference}", report.rows)
    for line in [*intervals(report.rows), *ratios(report.rows), *unverified(report.rows)]:
        click.echo(line)
    best = fastest(report.rows)
    if best is not None:
        where = f"{best.name} on {best.runtime} ({best.device})"
        click.echo(f"fastest: {where}, {best.p50_ms:.2f} ms, {best.fps:.0f} frames a second")
    return 1 if any(r.passed is False for r in report.rows) else 0


def write_samples(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write the time of every run of every candidate, in the order of the runs, milliseconds."""
    rows = [
        {
            "format": c.row.format,
            "precision": c.row.precision,
            "runtime": c.row.runtime,
            "device": c.row.device,
            "infer_ms": [round(seconds * 1e3, 5) for seconds in c.seconds],
            "total_ms": [round(seconds * 1e3, 5) for seconds in c.total_seconds],
        }
        for c in candidates
    ]
    write_file(path, msgspec.json.encode({"schema": 1, "rows": rows}) + b"\n")


def timing_frames(bundle: Bundle, data: Path | None, split: str | None) -> list[Frame]:
    """A few real frames: of the folder, else the golden ones. Raises BadInput where there are none."""
    if data is not None:
        return read_spread(evaluation_frames(data, split))
    if not bundle.manifest.golden:
        raise BadInput(f"{bundle.path} has no golden frames to run: give --data")
    return [read_frame(g) for g in bundle.manifest.golden]


def read_spread(folder: FrameFolder) -> list[Frame]:
    """A few frames of a folder, evenly spaced: what latency is measured on."""
    return [s.read_frame() for s in folder.spread(_FRAMES).samples]


def measure_latency(candidates: Sequence[Candidate], frames: Sequence[Frame], rounds: int, repeats: int) -> None:
    """Time all candidates by interleaved turns and fill their rows; the order of turns changes from round to round.

    Args:
        candidates: each gets the frames at its own network's size.
        frames: at least one; every turn takes the next.
        rounds: turns of each candidate.
        repeats: timed runs a turn, after an untimed one.
    """
    pixels = {p: [to_input(frame, p) for frame in frames] for p in {c.preprocess for c in candidates}}
    turns = cycle(range(len(frames)))
    order = np.random.default_rng(0)
    for candidate in candidates:
        candidate.run(pixels[candidate.preprocess][0])
    with progress("rounds", rounds) as advance:
        for _ in range(rounds):
            for index in order.permutation(len(candidates)):
                turn = next(turns)
                _take_turn(candidates[index], pixels[candidates[index].preprocess][turn], frames[turn], repeats)
            advance()
    for candidate in candidates:
        latency = Latency.of(np.array(candidate.seconds))
        row = candidate.row
        row.p50_ms, row.p90_ms, row.p99_ms, row.fps = latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.fps
        row.total_p50_ms = float(np.median(candidate.total_seconds)) * 1e3


def _take_turn(candidate: Candidate, pixels: Array, frame: Frame, repeats: int) -> None:
    run = candidate.run
    run(pixels)
    for _ in range(repeats):
        start = perf_counter()
        run(pixels)
        candidate.seconds.append(perf_counter() - start)
    start = perf_counter()
    try:
        candidate.segment(frame)
    except EdgesegError as error:
        candidate.fail(error)
    candidate.total_seconds.append(perf_counter() - start)


def measure_footprints(candidates: Sequence[Candidate]) -> None:
    """Fill load time and peak memory, each from a fresh process."""
    from edgeseg.runtimes.footprint import measure_footprint

    measured = [c for c in candidates if c.artifact is not None]
    with progress("load time and memory", len(measured)) as advance:
        for candidate in measured:
            assert candidate.artifact is not None
            row = candidate.row
            cost = measure_footprint(candidate.artifact, row.runtime, row.device, row.threads, candidate.options)
            row.load_ms, row.first_ms, row.peak_memory_mb = cost.load_ms, cost.first_ms, cost.peak_memory_mb
            advance()
