"""What `edgeseg frontier` measures: any set of bundles and sources, all of them in one interleaved run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeseg import plugins
from edgeseg.commands.bench import measure_latency, read_spread
from edgeseg.commands.candidates import (
    Candidate,
    candidate_rows,
    load_candidate,
    source_candidates,
    unloaded,
)
from edgeseg.commands.frontier_models import Model
from edgeseg.commands.measuring import score_frames
from edgeseg.commands.progress import progress
from edgeseg.commands.rows import Row
from edgeseg.dataset import FrameFolder
from edgeseg.errors import InferenceError, MissingDependency
from edgeseg.frontier.document import Data, HeldFrame, Point, Samples
from edgeseg.types import Bundle, Format

if TYPE_CHECKING:
    from edgeseg.converters.source import Source


@dataclass(frozen=True, slots=True)
class Entry:
    """A point of a model on its way: its row, and the candidate where it could be loaded."""

    model: Model
    row: Row
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: names of runtimes (all engines where empty), device, CPU threads, turns and timed runs a turn."""

    runtimes: tuple[str, ...]
    device: str
    threads: int
    rounds: int
    repeats: int


def load_entries(
    stack: contextlib.ExitStack,
    bundles: Sequence[tuple[Model, Bundle]],
    sources: Sequence[tuple[Model, Source]],
    plan: Plan,
) -> list[Entry]:
    """Load everything, for as long as `stack` lives; what cannot be loaded is an entry without a candidate.

    Raises:
        MissingDependency: where a runtime that the plan names is not installed.
        InferenceError: where nothing at all can run.
    """
    entries = [e for model, source in sources for e in _source_entries(model, source, plan.threads)]
    for model, bundle in bundles:
        entries += _bundle_entries(stack, model, bundle, plan)
    _check_some_run(entries)
    return entries


def _source_entries(model: Model, source: Source, threads: int) -> list[Entry]:
    candidates = source_candidates(source, threads)
    for candidate in candidates:
        candidate.row.size_mb = model.size_mb
    return [Entry(model, c.row, c) for c in candidates]


def _bundle_entries(stack: contextlib.ExitStack, model: Model, bundle: Bundle, plan: Plan) -> list[Entry]:
    entries = []
    for row, artifact in candidate_rows(bundle, plan.runtimes, plan.device, plan.threads):
        try:
            entries.append(Entry(model, row, load_candidate(stack, bundle, artifact, row)))
        except (InferenceError, MissingDependency) as error:
            if plan.runtimes and isinstance(error, MissingDependency):
                raise
            entries.append(Entry(model, unloaded(row, error)))
    if not entries:
        fitting = ", ".join(plan.runtimes) or "the installed engines"
        entries.append(Entry(model, Row("", "", "", "", None, passed=False, reason=f"no artifact fits {fitting}")))
    if not any(e.candidate for e in entries):
        for entry in entries:
            entry.row.passed = False
    return entries


def measure(entries: Sequence[Entry], folder: FrameFolder, classes: int, hc_offset_px: float, plan: Plan) -> None:
    """Fill the entries' candidates: masks scored on the same frames, then timed by turns.

    Raises:
        InferenceError: where no candidate gives masks.
    """
    candidates = [e.candidate for e in entries if e.candidate]
    with progress("segmenting", len(folder)) as advance:
        score_frames(candidates, folder, classes, hc_offset_px, advance)
    _check_some_run(entries)
    sound = [c for c in candidates if c.row.passed is not False]
    measure_latency(sound, read_spread(folder), plan.rounds, plan.repeats)


def _check_some_run(entries: Sequence[Entry]) -> None:
    if not any(e.candidate and e.row.passed is not False for e in entries):
        reasons = "; ".join(sorted({f"{e.model.name}: {e.row.reason}" for e in entries}))
        raise InferenceError(f"nothing can run here: {reasons}")


def describe_data(folder: FrameFolder, hc_offset_px: float) -> Data:
    """The frames as the document names them."""
    frames = tuple(HeldFrame(s.name, None if s.exam == s.name else s.exam) for s in folder.samples)
    return Data(folder.path.name, folder.split, folder.sha256(), hc_offset_px, frames)


def point(entry: Entry) -> Point:
    """The raw part of a point; its figures come from judging."""
    row, model = entry.row, entry.model
    failed = row.passed is False
    samples = _samples(entry.candidate) if entry.candidate and not failed else None
    return Point(
        name=_name(model, row),
        model=model.name,
        format=row.format or None,
        precision=row.precision or None,
        runtime=row.runtime or None,
        device=row.device or None,
        threads=row.threads,
        input=(model.preprocess.height, model.preprocess.width),
        size_mb=row.size_mb,
        macs=model.macs,
        source=model.source,
        state="measured" if samples else "failed" if failed else "absent",
        reason=row.reason,
        samples=samples,
    )


def _name(model: Model, row: Row) -> str:
    if not row.format:
        return model.name
    foreign = row.format != "torch" and plugins.ENGINE_OF[Format(row.format)] != row.runtime
    return f"{model.name}/{row.name}" + (f"@{row.runtime}" if foreign else "")


def _samples(candidate: Candidate) -> Samples:
    dice = [s.dice for s in candidate.scores if s.dice is not None]
    return Samples(
        dice=tuple(dice) or None,
        hc_error_mm=tuple(s.hc_error_mm for s in candidate.scores),
        run_ms=tuple(round(1e3 * s, 6) for s in candidate.seconds),
        total_ms=tuple(round(1e3 * s, 6) for s in candidate.total_seconds),
    )
