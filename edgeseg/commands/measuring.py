"""What bench and verify share: every artifact loaded on every runtime present, compared on the same frames."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeseg import metrics, plugins
from edgeseg.commands.progress import progress
from edgeseg.commands.rows import Report, Row
from edgeseg.commands.sources import source_options
from edgeseg.dataset import FrameFolder, Sample, read_folder, read_pair
from edgeseg.errors import BadInput, EdgesegError, InferenceError, MissingDependency
from edgeseg.frames import read_image
from edgeseg.parity import Comparison, ReferenceFrame, RunLogits, failed_gate, nchw_runner, reference_frame
from edgeseg.preprocess import to_input, to_mask
from edgeseg.types import Artifact, Bundle, Gates, Mask, Precision, Session

EVALUATION_SPLITS = ("test", "val")


@dataclass(slots=True)
class Candidate:
    """Something that turns raw pixels into logits, with the row it fills. `session` is None for the torch source."""

    row: Row
    run: RunLogits
    artifact: Artifact | None = None
    session: Session | None = None
    comparison: Comparison = field(default_factory=Comparison)
    exams: list[str] = field(default_factory=list)
    hc_errors: list[float] = field(default_factory=list)
    hc_exams: list[str] = field(default_factory=list)


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what bench and verify both take: frames, runtimes, device, JSON, and the source to compare with."""
    options = (
        click.option("--data", type=click.Path(path_type=Path), help="Frames folder; the golden frames without."),
        click.option("--split", help="Of the folder's index; test, then val, then all frames by default."),
        click.option(
            "--runtime",
            "runtimes",
            multiple=True,
            type=click.Choice(list(plugins.RUNTIMES)),
            help="Repeatable; every engine that is installed by default.",
        ),
        click.option("--device", default="auto", show_default=True, help="Of the runtimes, as in cpu or npu."),
        click.option(
            "--json",
            "json_path",
            type=click.Path(path_type=Path, dir_okay=False, writable=True),
            callback=_in_a_folder,
            help="Write the rows as JSON.",
        ),
        click.option("--source", help="Measure this source too, and compare with it; needs torch."),
        source_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _in_a_folder(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Known before minutes of measuring, not after."""
    if value is not None and not os.access(value.parent, os.W_OK):
        raise click.BadParameter(f"{value.parent} is not a folder that can be written")
    return value


@contextlib.contextmanager
def load_candidates(
    bundle: Bundle, runtimes: Sequence[str], device: str, threads: int | None
) -> Iterator[tuple[list[Candidate], list[Row]]]:
    """Every artifact on every runtime that reads its format.

    Args:
        bundle: an opened bundle.
        runtimes: names; all engines where empty, and then one that is not installed is no error.
        device: of the runtimes, or "auto".
        threads: CPU threads, None for the engines' own choice.

    Yields:
        The loaded candidates, and a row with the reason for each pair that could not be loaded.
    """
    candidates: list[Candidate] = []
    missing: list[Row] = []
    with contextlib.ExitStack() as stack:
        for name in runtimes or plugins.ENGINES:
            runtime = plugins.runtime(name)
            for artifact in bundle.artifacts:
                if artifact.format not in runtime.formats:
                    continue
                row = Row(artifact.format, artifact.precision, name, device, threads, size_mb=artifact.size_bytes / 1e6)
                try:
                    session = stack.enter_context(runtime.load(artifact.path, device=device, threads=threads))
                except (InferenceError, MissingDependency) as error:
                    if runtimes:
                        raise
                    row.reason = str(error)
                    row.passed = None if isinstance(error, MissingDependency) else False
                    missing.append(row)
                    continue
                row.device = session.device
                run = nchw_runner(session.run, session.inputs, session.outputs)
                candidates.append(Candidate(row, run, artifact, session))
        if not candidates:
            reasons = "; ".join(sorted({r.reason or "" for r in missing})) or "no artifact fits"
            raise InferenceError(f"nothing in {bundle.path.name} can run here: {reasons}")
        yield candidates, missing


def torch_candidates(spec: str, options: dict[str, Any], bundle: Bundle, threads: int | None) -> list[Candidate]:
    """The source as candidates: torch eager, and fused channels-last. Raises BadInput where it is another model."""
    plugins.require("convert", f"measuring the source {spec}")
    from edgeseg.converters.baseline import torch_baselines
    from edgeseg.converters.source import SourceOptions, load_source

    source = load_source(spec, SourceOptions(**options))
    if (source.preprocess, source.classes) != (bundle.preprocess, bundle.classes):
        raise BadInput(
            f"{spec} has {source.preprocess} and classes {source.classes}, the bundle {bundle.preprocess} and "
            f"{bundle.classes}: it is not this bundle's source"
        )
    made_from = bundle.manifest.provenance.source
    if source.origin["kind"] == made_from.get("kind") and source.origin.get("sha256") != made_from.get("sha256"):
        raise BadInput(f"{spec} has other weights than the source of this bundle: their SHA-256 differs")
    runs = torch_baselines(source, threads)
    return [Candidate(Row("torch", "fp32", name, "cpu", threads), run) for name, run in runs.items()]


def evaluation_frames(data: Path, split: str | None) -> FrameFolder:
    """The frames to measure on: the named split, else test, else val, else all."""
    folder = read_folder(data)
    return folder.select(split) if split else folder.prefer(*EVALUATION_SPLITS)


def golden_references(bundle: Bundle) -> Iterator[tuple[ReferenceFrame, Sample | None]]:
    """The golden frames with the results of the source, as stored in the bundle."""
    for golden in bundle.manifest.golden:
        logits = np.load(golden.logits.path, allow_pickle=False)
        yield ReferenceFrame(read_image(golden.frame.path), logits, read_image(golden.mask.path)), None


def folder_references(
    folder: FrameFolder, bundle: Bundle, reference: RunLogits
) -> Iterator[tuple[ReferenceFrame, Sample | None]]:
    """Frame by frame, what the reference makes of a folder; nothing is held in memory."""
    for sample in folder.samples:
        frame, truth = read_pair(sample, len(bundle.classes))
        yield reference_frame(frame, truth, bundle.preprocess, reference), sample


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
    everything = [*candidates, *baselines]
    report.rows = [c.row for c in everything]
    if data is None:
        count = len(bundle.manifest.golden)
        report.reference = f"the source's results on {count} golden frames"
        references, offset = golden_references(bundle), 0.0
    else:
        folder = evaluation_frames(data, split)
        count = len(folder)
        reference = baselines[0] if baselines else _stand_in(candidates)
        report.data = f"{folder.path.name} {folder.split}".strip()
        what = "the source" if baselines else f"{reference.row.name}, which stands in for the source,"
        report.reference = f"{what} on {count} frames of {report.data}"
        references = folder_references(folder, bundle, reference.run)
        offset = hc_offset(read_folder(data), len(bundle.classes))
    with progress("comparing", count) as advance:
        measure_accuracy(everything, references, bundle, offset, advance)


def _stand_in(candidates: Sequence[Candidate]) -> Candidate:
    """The fp32 artifact closest to the source at conversion."""
    exact = [c for c in candidates if c.artifact and c.row.precision == Precision.FP32]
    if not exact:
        raise BadInput("the bundle has no fp32 artifact that runs here to compare with: give --source")
    return min(exact, key=lambda c: c.artifact.parity.logit_error if c.artifact and c.artifact.parity else 1.0)


def fill_execution(candidates: Iterable[Candidate]) -> None:
    """Fill what each engine really ran, from its own records."""
    for candidate in candidates:
        if candidate.session is not None:
            candidate.row.executed = candidate.session.execution()


def measure_accuracy(
    candidates: Sequence[Candidate],
    references: Iterable[tuple[ReferenceFrame, Sample | None]],
    bundle: Bundle,
    hc_offset_px: float,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Fill the accuracy of every candidate's row, all of them on the same frames."""
    for reference, sample in references:
        pixels = to_input(reference.frame, bundle.preprocess)
        for candidate in candidates:
            try:
                logits = candidate.run(pixels)
                mask = to_mask(logits, reference.frame.shape)
            except EdgesegError as error:
                candidate.row.passed, candidate.row.reason = False, str(error)
                continue
            candidate.comparison.add(reference, logits, mask)
            if sample is not None:
                candidate.exams.append(sample.exam)
                _add_circumference(candidate, mask, sample, hc_offset_px)
        advance()
    for candidate in candidates:
        _fill(candidate, bundle.manifest.gates)


def hc_offset(folder: FrameFolder, classes: int) -> float:
    """The outline offset of a folder's masks in pixels, from its train split; 0 where it has none with references."""
    if "train" not in folder.splits or classes != 2:
        return 0.0
    known = [s for s in folder.select("train").samples if s.mask and s.pixel_size_mm and s.hc_mm_reference]
    masks = [s.read_mask(classes) for s in known]
    return metrics.outline_offset_px(
        masks, [s.pixel_size_mm or 0.0 for s in known], [s.hc_mm_reference or 0.0 for s in known]
    )


def _add_circumference(candidate: Candidate, mask: Mask, sample: Sample, offset_px: float) -> None:
    if sample.pixel_size_mm is None or sample.hc_mm_reference is None:
        return
    measured = metrics.head_circumference_mm(mask, sample.pixel_size_mm, offset_px)
    # A head that was not found is an error of its whole circumference, not a frame to leave out.
    candidate.hc_errors.append(abs((measured or 0.0) - sample.hc_mm_reference))
    candidate.hc_exams.append(sample.exam)


def _fill(candidate: Candidate, gates: Gates) -> None:
    row, comparison = candidate.row, candidate.comparison
    if not comparison.errors:
        return
    parity = comparison.parity(row.runtime)
    row.frames = parity.frames
    row.dice, row.dice_source, row.agreement = parity.dice, parity.dice_source, parity.agreement
    row.sqnr_db, row.logit_error = parity.sqnr_db, parity.logit_error
    if comparison.dice:
        row.dice_ci = metrics.bootstrap_interval(comparison.dice, candidate.exams)
    if candidate.hc_errors:
        row.hc_mae_mm = float(np.mean(candidate.hc_errors))
        row.hc_mae_ci = metrics.bootstrap_interval(candidate.hc_errors, candidate.hc_exams)
    if row.passed is None and candidate.artifact is not None:
        row.reason = failed_gate(parity, gates, Precision(row.precision))
        row.passed = row.reason is None
