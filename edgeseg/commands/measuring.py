"""What bench, verify and frontier share: their options, and candidates compared on the same frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeseg import metrics, plugins
from edgeseg.commands.candidates import Candidate, FrameScore
from edgeseg.commands.progress import progress
from edgeseg.commands.rows import SHARED_WITH_PARITY, Report
from edgeseg.commands.sources import source_options
from edgeseg.dataset import FrameFolder, Sample, outline_offset, read_folder, read_pair
from edgeseg.errors import BadInput, EdgesegError, InferenceError
from edgeseg.evidence import Gates, Parity
from edgeseg.execution import recorded
from edgeseg.gates import Judged, failures, judge, judge_task
from edgeseg.golden import read_frame, read_logits, read_mask
from edgeseg.parity import ReferenceFrame, RunLogits, reference_frame
from edgeseg.self_test import read_expected, self_test
from edgeseg.types import Bundle, Mask, Precision

EVALUATION_SPLITS = ("test", "val")


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what bench and verify both take: frames, runtimes, device, JSON, and the source to compare with."""
    options = (
        click.option("--data", type=click.Path(path_type=Path), help="Frames folder; the golden frames without."),
        engine_options,
        click.option(
            "--json",
            "json_path",
            type=click.Path(path_type=Path, dir_okay=False, writable=True),
            callback=in_a_folder,
            help="Write the rows as JSON.",
        ),
        click.option("--source", help="Measure this source too, and compare with it; needs torch."),
        source_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add which frames of a folder, and which runtimes on which device."""
    options = (
        click.option("--split", help="Of the folder's index; test, then val, then all frames by default."),
        click.option(
            "--runtime",
            "runtimes",
            multiple=True,
            type=click.Choice(list(plugins.RUNTIMES)),
            help="Repeatable; every engine that is installed by default.",
        ),
        click.option("--device", default="auto", show_default=True, help="Of the runtimes, as in cpu or npu."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def in_a_folder(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Known before minutes of measuring, not after."""
    if value is not None and not os.access(value.parent, os.W_OK):
        raise click.BadParameter(f"{value.parent} is not a folder that can be written")
    return value


def evaluation_frames(data: Path, split: str | None) -> FrameFolder:
    """The frames to measure on: the named split, else test, else val, else all."""
    folder = read_folder(data)
    return folder.select(split) if split else folder.prefer(*EVALUATION_SPLITS)


def golden_references(bundle: Bundle) -> Iterator[ReferenceFrame]:
    """The golden frames with the results of the network that the artifacts were made of, as stored in the bundle."""
    for golden in bundle.manifest.golden:
        yield ReferenceFrame(read_frame(golden), read_logits(golden), read_mask(golden))


def folder_references(folder: FrameFolder, bundle: Bundle, reference: RunLogits) -> Iterator[ReferenceFrame]:
    """Frame by frame, what the reference makes of a folder; nothing is held in memory."""
    for sample in folder.samples:
        frame, truth = read_pair(sample, len(bundle.classes))
        yield reference_frame(frame, truth, bundle.preprocess, reference, sample)


def compare_candidates(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    baselines: Sequence[Candidate],
    report: Report,
    data: Path | None,
    split: str | None,
) -> None:
    """Fill the accuracy of all rows, on the frames of `data` or the golden frames, and put the rows into the report.

    Args:
        bundle: whose gates hold.
        candidates: its loaded artifacts.
        baselines: the torch source; where there is none, an fp32 artifact stands in for it on the frames of `data`.
        report: gets the rows, and what they were compared with.
        data: frames folder.
        split: of its index.
    """
    gates = bundle.manifest.gates
    # A distilled or pruned network is another one than the source: only the task itself can be compared.
    other = bool(baselines and bundle.manifest.provenance.compression)

    def judged(parity: Parity, precision: Precision) -> Sequence[Judged]:
        return judge_task(parity, gates) if other else judge(parity, gates, precision)

    everything = [*candidates, *baselines]
    report.rows = [c.row for c in everything]
    if data is None:
        count = len(bundle.manifest.golden)
        report.reference = f"the source's results on {count} golden frames"
        references, offset = golden_references(bundle), 0.0
    else:
        folder = evaluation_frames(data, split)
        count = len(folder)
        reference = baselines[0] if baselines else stand_in(candidates)
        report.data = f"{folder.path.name} {folder.split}".strip()
        what = "the source" if baselines else f"{reference.row.name}, which stands in for the source,"
        report.reference = f"{what} on {count} frames of {report.data}"
        references = folder_references(folder, bundle, reference.run)
        offset = hc_offset(read_folder(data), len(bundle.classes))
    with progress("comparing", count) as advance:
        measure_accuracy(everything, references, judged, offset, advance, gates.small_share)


def stand_in(candidates: Sequence[Candidate]) -> Candidate:
    """The fp32 artifact closest to the source at conversion."""
    exact = [c for c in candidates if c.artifact and c.row.precision == Precision.FP32]
    if not exact:
        raise BadInput("the bundle has no fp32 artifact that runs here to compare with: give --source")
    return min(exact, key=_logit_error)


def _logit_error(candidate: Candidate) -> float:
    parity = candidate.artifact.parity if candidate.artifact else None
    return 1.0 if parity is None or parity.logit_error is None else parity.logit_error


def fill_execution(candidates: Iterable[Candidate]) -> None:
    """Fill what each engine really ran, from its own records."""
    for candidate in candidates:
        if candidate.session is None:
            continue
        try:
            candidate.row.executed = candidate.session.execution()
        except InferenceError as error:
            if candidate.row.passed is not False:
                candidate.fail(error)


def self_test_candidates(bundle: Bundle, candidates: Sequence[Candidate], *, alone: bool) -> None:
    """Run the self-test of each candidate and fill what it executed and, where that failed, its verdict.

    Args:
        bundle: of the candidates.
        candidates: loaded, their rows compared.
        alone: whether the golden frames are all there is: then tolerances that were recorded for this runtime at
            conversion decide, and not the gates, which are for more frames.
    """
    expected = read_expected(bundle)
    for candidate in candidates:
        row, artifact, session = candidate.row, candidate.artifact, candidate.session
        if artifact is None or session is None or not candidate.comparison.frames or not expected:
            continue
        try:
            result = self_test(bundle, artifact, row.runtime, session, expected)
        except InferenceError as error:
            if row.passed is not False:
                candidate.fail(error)
            continue
        row.executed = result.executed
        if result.reasons:
            row.failed = (*result.reasons, *(row.failed or ()))
            row.passed, row.reason = False, result.reasons[0]
        # A run that failed on the way has no gates that failed, and stays failed.
        elif alone and recorded(artifact, row.runtime, row.device) and (row.passed or row.failed):
            row.passed, row.reason, row.failed = True, None, None


def measure_accuracy(
    candidates: Sequence[Candidate],
    references: Iterable[ReferenceFrame],
    judged: Callable[[Parity, Precision], Sequence[Judged]],
    hc_offset_px: float,
    advance: Callable[[], None] = lambda: None,
    small_share: float = Gates().small_share,
) -> None:
    """Fill the accuracy of every candidate's row, all of them on the same frames; `judged` has the gates."""
    for candidate in candidates:
        candidate.comparison.hc_offset_px = hc_offset_px
    for reference in references:
        for candidate in candidates:
            try:
                logits, mask = candidate.segment(reference.frame)
            except EdgesegError as error:
                candidate.fail(error)
                continue
            candidate.comparison.add(reference, logits, mask)
            if reference.sample is not None:
                candidate.scores.append(score(mask, reference.truth, reference.sample, hc_offset_px))
        advance()
    for candidate in candidates:
        _fill(candidate, judged, small_share)


def score_frames(
    candidates: Sequence[Candidate],
    folder: FrameFolder,
    classes: int,
    hc_offset_px: float,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Score every candidate's masks on the same frames against the folder's references, without a source.

    A candidate that fails on a frame is marked and left out from there on.
    """
    for sample in folder.samples:
        frame, truth = read_pair(sample, classes)
        for candidate in candidates:
            if candidate.row.passed is False:
                continue
            try:
                _, mask = candidate.segment(frame)
            except EdgesegError as error:
                candidate.fail(error)
            else:
                candidate.scores.append(score(mask, truth, sample, hc_offset_px))
        advance()


def score(mask: Mask, truth: Mask | None, sample: Sample, hc_offset_px: float) -> FrameScore:
    """Score a mask [H, W] against the reference mask [H, W] and the reference circumference, where they are known."""
    error = sample.circumference_error_mm(mask, hc_offset_px)
    return FrameScore(sample.exam, None if truth is None else metrics.dice(mask, truth), error)


def hc_offset(folder: FrameFolder, classes: int) -> float:
    """The outline offset of a folder's masks in pixels, from its train split; 0 where it has none with references."""
    return outline_offset(folder.select("train"), classes) if "train" in folder.splits else 0.0


def _fill(candidate: Candidate, judged: Callable[[Parity, Precision], Sequence[Judged]], small_share: float) -> None:
    row, comparison = candidate.row, candidate.comparison
    if not comparison.frames:
        return
    parity = comparison.parity(row.runtime, small_share)
    for name in SHARED_WITH_PARITY:
        setattr(row, name, getattr(parity, name))
    if dice := [(s.dice, s.exam) for s in candidate.scores if s.dice is not None]:
        row.dice_ci = metrics.bootstrap_interval(*zip(*dice, strict=True))
    if errors := [(s.hc_error_mm, s.exam) for s in candidate.scores if s.hc_error_mm is not None]:
        row.hc_mae_mm = float(np.mean([error for error, _ in errors]))
        row.hc_mae_ci = metrics.bootstrap_interval(*zip(*errors, strict=True))
    if candidate.artifact is not None:
        row.gates = tuple(judged(parity, Precision(row.precision)))
        if row.passed is None:
            row.failed = failures(row.gates)
            row.passed, row.reason = not row.failed, next(iter(row.failed), None)
