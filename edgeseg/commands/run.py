"""`edgeseg run`: frames in, masks, overlays and figures out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import open_bundle
from edgeseg.commands.isolation import isolate_option
from edgeseg.commands.profile_plan import planned, profile_option
from edgeseg.commands.progress import progress
from edgeseg.commands.ranges import SMOOTHING
from edgeseg.commands.run_output import (
    DICOM_SUFFIX,
    Outcome,
    Wanted,
    check_output,
    is_file_name,
    open_output,
)
from edgeseg.dicom_codes import SegmentCode, read_codes
from edgeseg.dicom_seg import Algorithm, check_available
from edgeseg.errors import BadInput
from edgeseg.frames import FrameItem, FrameSource, SourceKind, open_frames
from edgeseg.measure import measure
from edgeseg.plugins import RUNTIMES
from edgeseg.scan_area import AreaTracker, tracker
from edgeseg.smoothing import Smoother
from edgeseg.types import Mask, Precision

if TYPE_CHECKING:
    from edgeseg.runtimes.segmenter import Segmentation, Segmenter, Timing

_STAGES = ("preprocess", "infer", "postprocess")
_STILLS = (SourceKind.IMAGE, SourceKind.FOLDER)  # pictures that need not follow each other
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog="Example:  edgeseg run head.edgeseg clip.mp4 -o overlay.mp4",
    short_help="Segment an image, a folder, a clip or a DICOM file.",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("input", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder, a clip or a .dcm file.")
@click.option("--runtime", type=click.Choice(["auto", *RUNTIMES]), default="auto", show_default=True, help="Engine.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="A device of the engine.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="CPU threads.")
@profile_option
@click.option("--precision", type=click.Choice([str(p) for p in Precision]), help="Only artifacts of this precision.")
@isolate_option(False, "Run the engine in a process of its own, in a sandbox; off by default.")
@click.option("--strict", is_flag=True, help="Fail where the engine uses another device or precision, or falls back.")
@click.option("--self-test", is_flag=True, help="Run the golden frames first; fail where they come out otherwise.")
@click.option("--csv", "csv_file", type=_FILE, help="A file for the figures, which a folder gets as results.csv too.")
@click.option("--confidence", is_flag=True, help="Also write the probability of each class as a picture.")
@click.option("--contours", is_flag=True, help="Also write the outlines as contours.json.")
@click.option("--dicom-seg", is_flag=True, help="Also write the masks of a DICOM INPUT as segmentation.dcm.")
@click.option("--codes", type=_FILE, help="TOML file of coded terms for the classes in DICOM.")
@click.option(
    "--smoothing",
    type=SMOOTHING,
    default=0.0,
    metavar="W",
    help="Weight of the frames before in a clip or cine, 0 (none) to below 1.",
)
def run(
    bundle: Path,
    input: Path,
    output: Path,
    runtime: str,
    device: str,
    threads: int,
    profile: str | None,
    precision: str | None,
    isolate: bool,
    strict: bool,
    self_test: bool,
    csv_file: Path | None,
    confidence: bool,
    contours: bool,
    dicom_seg: bool,
    codes: Path | None,
    smoothing: float,
) -> None:
    """Segment the frames of INPUT with BUNDLE.

    INPUT is an image, a folder of images (or of images/), a clip (MP4, AVI, MKV) or a DICOM file. A folder OUTPUT gets

    \b
      masks/NAME.png     for programs: class indices, which look black
      overlays/NAME.png  for people: the frame, every class filled and outlined
      results.csv        time and area; mm2 and the circumference of the
                         ellipse where the pixel size is known
      confidence/NAME_CLASS.png, contours.json, segmentation.dcm where asked for

    An OUTPUT that ends in .mp4 or .avi becomes a clip of the overlays, at the rate of INPUT, else 10 frames a second.
    One that ends in .dcm becomes a DICOM Segmentation object, which refers to the DICOM file INPUT. Live sources are
    for `edgeseg stream`.
    """
    # Imported here: `edgeseg run --help` needs no runtime.
    from edgeseg.runtimes.segmenter import load

    wanted = Wanted(output, csv_file, contours, confidence, dicom_seg)
    wanted = replace(wanted, codes=_check(wanted, input, codes))
    opened = open_bundle(bundle)
    with (
        open_frames(input) as source,
        load(
            opened,
            runtime=runtime,
            device=device,
            precision=precision,
            threads=threads,
            isolate=isolate,
            strict=strict,
            self_test=self_test,
            plan=planned(profile),
        ) as segmenter,
    ):
        wanted = replace(wanted, algorithm=_algorithm(opened.manifest.name, segmenter, smoothing))
        timings, damage = _segment_all(source, segmenter, wanted, _smoother(source, smoothing))
        click.echo(_closing_line(timings, segmenter, output))
        if source.damaged:
            click.echo(f"{source.damaged} damaged frame{'s' * (source.damaged > 1)} left out")
    if damage:
        raise damage


def _check(wanted: Wanted, input: Path, codes: Path | None) -> dict[str, SegmentCode]:
    """Whatever can be said before anything is loaded; the content of the file of codes."""
    check_output(wanted.path, input)
    to_dicom = wanted.path.suffix.lower() == DICOM_SUFFIX or wanted.dicom_seg
    beside = {"--confidence": wanted.confidence, "--contours": wanted.contours, "--dicom-seg": wanted.dicom_seg}
    for option, asked in beside.items():
        if asked and is_file_name(wanted.path):
            raise click.UsageError(f"{option} needs a folder as OUTPUT, {wanted.path.name} is a file")
    if codes and not to_dicom:
        raise click.UsageError("--codes needs --dicom-seg or an OUTPUT that ends in .dcm")
    if to_dicom:
        check_available()
    return read_codes(codes) if codes else {}


def _algorithm(name: str, segmenter: Segmenter, smoothing: float) -> Algorithm:
    artifact = segmenter.artifact
    parameters = {"smoothing": f"{smoothing:g}"} if smoothing else {}
    return Algorithm(name, artifact.name, artifact.sha256, f"{segmenter.runtime} {segmenter.device}", parameters)


def _smoother(source: FrameSource, weight: float) -> Smoother | None:
    if not weight:
        return None
    if source.kind in _STILLS:
        raise BadInput(
            f"--smoothing needs a clip or a cine, {source.path} has pictures that need not follow each other"
        )
    return Smoother(weight)


def _tracker(source: FrameSource, segmenter: Segmenter) -> AreaTracker | None:
    return None if source.kind in _STILLS else tracker(segmenter.preprocess)


def _segment_all(
    source: FrameSource, segmenter: Segmenter, wanted: Wanted, smoother: Smoother | None
) -> tuple[list[Timing], BadInput | None]:
    """Segment frame by frame. Where the source breaks off, the results up to there stay and the error is returned."""
    timings: list[Timing] = []
    areas = _tracker(source, segmenter)
    with ExitStack() as stack:
        # Nothing is written before the first frame is there: a bad INPUT leaves no empty OUTPUT.
        item: FrameItem | None = next(source)
        output = open_output(stack, source, wanted, segmenter.classes)
        advance = stack.enter_context(progress(source.path.name if source.path else "frames", source.length))
        while item is not None:
            area = None if areas is None else areas.area(item.frame)
            result = segmenter(item.frame, area=area, confidence=wanted.confidence or smoother is not None)
            mask, confidence = _smoothed(result, smoother)
            found = measure(mask, segmenter.classes, item.pixel_size_mm)
            output.write(Outcome(item, mask, found, confidence))
            timings.append(result.timing)
            advance()
            try:
                item = next(source, None)
            except BadInput as error:
                return timings, error
    return timings, None


def _smoothed(result: Segmentation, smoother: Smoother | None) -> tuple[Mask, NDArray[np.float32] | None]:
    if smoother is None or result.confidence is None:
        return result.mask, result.confidence
    return smoother.update(result.confidence), smoother.confidence


def _closing_line(timings: Sequence[Timing], segmenter: Segmenter, output: Path) -> str:
    figures = ", ".join(f"{stage} {np.median([getattr(t, stage) for t in timings]):.2f}" for stage in _STAGES)
    frames = "1 frame" if len(timings) == 1 else f"{len(timings)} frames"
    ran = segmenter.execution
    where = f"{segmenter.artifact.name} on {segmenter.runtime} {segmenter.device}, ran in {ran.precision}"
    return f"{frames}, median ms: {figures} ({where}); results in {output}"
