"""What `edgeseg report` measures: every artifact on every runtime present, as raw samples, and frames to look at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg import plugins
from edgeseg.commands.bench import measure_latency, timing_frames
from edgeseg.commands.candidates import Candidate, load_candidates, torch_candidates
from edgeseg.commands.measuring import (
    compare_candidates,
    evaluation_frames,
    fill_execution,
    folder_references,
    golden_references,
    stand_in,
)
from edgeseg.commands.progress import progress
from edgeseg.commands.rows import Report, Row
from edgeseg.dataset import FrameFolder
from edgeseg.errors import BadInput, EdgesegError
from edgeseg.execution import execution_faults
from edgeseg.parity import Comparison, FrameDifference, ReferenceFrame
from edgeseg.report.document import ABSENT, FAILED, MEASURED, Frames, Measured, MeasuredFrame
from edgeseg.report.figures import shown_frames
from edgeseg.report.outlines import Overlay, Picture, overlay, picture
from edgeseg.self_test import Expected, read_expected, self_test
from edgeseg.types import Array, Bundle, Mask

_LARGEST_ENERGY = 1e300


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure with: the options of the command."""

    data: Path | None
    split: str | None
    runtimes: Sequence[str]
    device: str
    threads: int
    rounds: int
    repeats: int
    source: str | None
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured, and what there is to look at."""

    frames: Frames
    rows: tuple[Measured, ...]
    pictures: tuple[Picture, ...]
    overlays: tuple[Overlay, ...]


@dataclass
class _Recording(Comparison):
    """Keeps the energies of each frame's logits too, from which their SQNR over all frames follows."""

    energies: list[tuple[float, float] | None] = field(default_factory=list)

    def add(self, reference: ReferenceFrame, logits: Array, mask: Mask) -> FrameDifference:
        """As `Comparison.add`."""
        frame, energy = super().add(reference, logits, mask), None
        if logits.shape == reference.logits.shape:
            expected = reference.logits.astype(np.float64)
            noise = float(np.sum((expected - logits) ** 2))
            # JSON has no NaN: what is no number is the largest error there is.
            energy = float(np.sum(expected**2)), noise if noise < _LARGEST_ENERGY else _LARGEST_ENERGY
        self.energies.append(energy)
        return frame


def measure(bundle: Bundle, plan: Plan) -> Findings:
    """Measure everything a report needs.

    Raises:
        BadInput: there are no frames, or the source is another model.
        InferenceError: nothing in the bundle can run here.
    """
    if plan.data is None and not bundle.manifest.golden:
        raise BadInput(f"{bundle.path.name} has no golden frames to run: give --data")
    if plan.source and plan.data is None:
        raise BadInput("--source needs --data: the golden frames already have the source's results")
    with load_candidates(bundle, plan.runtimes, plan.device, plan.threads) as (candidates, missing):
        baselines = torch_candidates(plan.source, plan.options, bundle, plan.threads) if plan.source else []
        everything = [*candidates, *baselines]
        recordings = [_Recording() for _ in everything]
        for candidate, recording in zip(everything, recordings, strict=True):
            candidate.comparison = recording
        report = Report(bundle.path.name, "")
        compare_candidates(bundle, candidates, baselines, report, plan.data, plan.split)
        expected = read_expected(bundle)
        tested = [_self_test(bundle, candidate, expected) for candidate in candidates]
        frames = _frames(bundle, plan, report.reference, bool(baselines), recordings[0].hc_offset_px)
        able = [c for c in everything if len(c.comparison.frames) == len(frames.frames)]
        if able:
            measure_latency(able, timing_frames(bundle, plan.data, plan.split), plan.rounds, plan.repeats)
        fill_execution(able)
        rows = [
            _measured(candidate, recording, reasons, candidate in able)
            for candidate, recording, reasons in zip(
                everything, recordings, [*tested, *(None for _ in baselines)], strict=True
            )
        ]
        pictures, overlays = _overlays(bundle, plan, candidates, baselines, rows)
    return Findings(
        frames, (*rows[: len(candidates)], *map(_missing, missing), *rows[len(candidates) :]), pictures, overlays
    )


def _self_test(bundle: Bundle, candidate: Candidate, expected: Sequence[Expected]) -> tuple[str, ...] | None:
    if not expected or candidate.artifact is None or candidate.session is None:
        return None
    try:
        return self_test(bundle, candidate.artifact, candidate.row.runtime, candidate.session, expected).reasons
    except EdgesegError as error:
        return (str(error),)


def _frames(bundle: Bundle, plan: Plan, reference: str, source: bool, hc_offset_px: float) -> Frames:
    if plan.data is None:
        golden = bundle.manifest.golden
        return Frames(
            golden=True,
            reference=reference,
            frames=tuple(MeasuredFrame(g.frame.path.name, g.frame.sha256) for g in golden),
        )
    folder = evaluation_frames(plan.data, plan.split)
    return Frames(
        golden=False,
        reference=reference,
        task_only=source and bool(bundle.manifest.provenance.compression),
        folder=folder.path.name,
        split=folder.split,
        sha256=folder.sha256(),
        hc_offset_px=hc_offset_px,
        frames=tuple(
            MeasuredFrame(s.name, hashlib.sha256(s.image.read_bytes()).hexdigest(), s.exam if s.exam != s.name else "")
            for s in folder.samples
        ),
    )


def _measured(candidate: Candidate, recording: _Recording, reasons: tuple[str, ...] | None, able: bool) -> Measured:
    row, executed = candidate.row, candidate.row.executed
    faults: tuple[str, ...] = ()
    if candidate.artifact is not None and executed is not None:
        faults = tuple(execution_faults(candidate.artifact, row.runtime, row.device, executed))
    return Measured(
        artifact=row.name,
        precision=row.precision,
        runtime=row.runtime,
        version=_version(row),
        device=row.device,
        threads=row.threads,
        state=MEASURED if able else FAILED,
        reason="" if able else row.reason or "it gave no result",
        executed=executed,
        faults=faults,
        self_test=reasons,
        differences=tuple(recording.frames),
        energies=tuple(recording.energies),
        run_ms=_milliseconds(candidate.seconds),
        total_ms=_milliseconds(candidate.total_seconds),
    )


def _missing(row: Row) -> Measured:
    state = ABSENT if row.passed is None else FAILED
    return Measured(
        row.name, row.precision, row.runtime, "", row.device, row.threads, state, row.reason or "it cannot be loaded"
    )


def _version(row: Row) -> str:
    if row.format == "torch":
        from importlib.metadata import version

        return version("torch")
    return plugins.runtime(row.runtime).version()


def _milliseconds(seconds: Sequence[float]) -> tuple[float, ...]:
    """To the nanosecond, which is more than a clock has."""
    return tuple(round(s * 1e3, 6) for s in seconds)


def _overlays(
    bundle: Bundle,
    plan: Plan,
    candidates: Sequence[Candidate],
    baselines: Sequence[Candidate],
    rows: Sequence[Measured],
) -> tuple[tuple[Picture, ...], tuple[Overlay, ...]]:
    """The best, the median and the worst frame of each artifact, run once more: masks are not kept while measuring."""
    wanted = [
        (index, which, candidate, row)
        for candidate, row in zip(candidates, rows, strict=False)
        if row.state == MEASURED
        for which, index in shown_frames(row).items()
    ]
    references = _references(bundle, plan, candidates, baselines, sorted({index for index, *_ in wanted}))
    overlays = []
    with progress("pictures", len(wanted)) as advance:
        for index, which, candidate, row in wanted:
            reference = references[index]
            _, mask = candidate.segment(reference.frame)
            overlays.append(overlay(row.key, which, index, (reference.mask, mask, reference.truth)))
            advance()
    pictures = tuple(picture(f"frame-{index}", reference.frame) for index, reference in references.items())
    return pictures, tuple(overlays)


def _references(
    bundle: Bundle,
    plan: Plan,
    candidates: Sequence[Candidate],
    baselines: Sequence[Candidate],
    indices: Sequence[int],
) -> dict[int, ReferenceFrame]:
    if plan.data is None:
        return {i: reference for i, reference in enumerate(golden_references(bundle)) if i in indices}
    folder = evaluation_frames(plan.data, plan.split)
    chosen = FrameFolder(folder.path, tuple(folder.samples[i] for i in indices), folder.split)
    reference = baselines[0] if baselines else stand_in(candidates)
    return dict(zip(indices, folder_references(chosen, bundle, reference.run), strict=True))
