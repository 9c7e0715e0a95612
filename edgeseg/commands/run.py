"""`edgeseg run`: frames in, masks, overlays and figures out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import click
import numpy as np

from edgeseg.bundle import open_bundle
from edgeseg.commands.isolation import isolate_option
from edgeseg.commands.progress import progress
from edgeseg.errors import BadInput
from edgeseg.frames import FrameItem, FrameSource, open_frames
from edgeseg.measure import Measurement, measure
from edgeseg.overlay import CLIP_SUFFIXES, ClipWriter, draw, write_image
from edgeseg.plugins import RUNTIMES
from edgeseg.types import Frame, Mask, Precision

if TYPE_CHECKING:
    from edgeseg.runtimes.segmenter import Segmenter, Timing

RESULTS = "results.csv"
_COLUMNS = ("frame", "index", "time_s", "class", "area_px", "area_mm2", "circumference_mm")
_RATE_WITHOUT_CLOCK_HZ = 10.0
_STAGES = ("preprocess", "infer", "postprocess")
_FILE = click.Path(dir_okay=False, path_type=Path)


class _Output(Protocol):
    def write(self, item: FrameItem, mask: Mask, overlay: Frame) -> None: ...


class _FolderOutput:
    def __init__(self, path: Path) -> None:
        self._masks, self._overlays = path / "masks", path / "overlays"

    def write(self, item: FrameItem, mask: Mask, overlay: Frame) -> None:
        write_image(self._masks / f"{item.name}.png", mask)
        write_image(self._overlays / f"{item.name}.png", overlay)


class _ClipOutput:
    def __init__(self, writer: ClipWriter) -> None:
        self._writer = writer

    def write(self, item: FrameItem, mask: Mask, overlay: Frame) -> None:
        self._writer.write(overlay)


@click.command(
    epilog="Example:  edgeseg run head.edgeseg clip.mp4 -o overlay.mp4",
    short_help="Segment an image, a folder, a clip or a DICOM file.",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("input", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder, or a clip.")
@click.option("--runtime", type=click.Choice(["auto", *RUNTIMES]), default="auto", show_default=True, help="Engine.")
@click.option("--device", default="auto", show_default=True, help="A device of the engine.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads of the engine.")
@click.option("--precision", type=click.Choice([str(p) for p in Precision]), help="Only artifacts of this precision.")
@isolate_option(False, "Run the engine in a process of its own, with limits and in a sandbox.")
@click.option("--strict", is_flag=True, help="Fail where the engine uses another device or precision, or falls back.")
@click.option("--self-test", is_flag=True, help="Run the golden frames first; fail where they come out otherwise.")
@click.option("--csv", "csv_file", type=_FILE, help="Where the figures go; by default OUTPUT/results.csv.")
def run(
    bundle: Path,
    input: Path,
    output: Path,
    runtime: str,
    device: str,
    threads: int,
    precision: str | None,
    isolate: bool,
    strict: bool,
    self_test: bool,
    csv_file: Path | None,
) -> None:
    """Segment the frames of INPUT with BUNDLE.

    INPUT is an image, a folder of images (or of images/), a clip (MP4, AVI, MKV) or a DICOM file. A folder OUTPUT gets

    \b
      masks/NAME.png     class indices, for programs: 0 is the background, so they look black
      overlays/NAME.png  the frame with every class filled and outlined, for people
      results.csv        time, area and, where the pixel size is known, mm2 and the ellipse's circumference

    An OUTPUT that ends in .mp4 or .avi becomes a clip of the overlays, at the rate of INPUT, else 10 frames a second.
    """
    # Imported here: `edgeseg run --help` needs no runtime.
    from edgeseg.runtimes.segmenter import load

    check_output(output)
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
        ) as segmenter,
    ):
        timings, damage = _segment_all(source, segmenter, output, csv_file)
        click.echo(_closing_line(timings, segmenter, output))
    if damage:
        raise damage


def check_output(path: Path) -> None:
    """Raise BadInput unless results may be written to `path`.

    A clip must not take the place of a folder. A folder must be new, empty or the result of an earlier run: a data
    set with a `masks` folder of its own is never overwritten.
    """
    if path.suffix.lower() in CLIP_SUFFIXES:
        if path.is_dir():
            raise BadInput(f"{path} is a folder, expected the name of a clip: choose another -o")
        if not path.parent.is_dir():
            raise BadInput(f"{path.parent} is not a folder, expected one for the clip {path.name}: create it first")
        return
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file, expected a folder or a name that ends in .mp4 or .avi: choose another -o")
    if path.is_dir() and any(path.iterdir()) and not _is_from_a_run(path):
        raise BadInput(f"{path} has files that no run made, they will not be touched: choose another -o")


def _is_from_a_run(path: Path) -> bool:
    try:
        with (path / RESULTS).open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip() in ("", ",".join(_COLUMNS))
    except FileNotFoundError:
        return False


def _segment_all(
    source: FrameSource, segmenter: Segmenter, output: Path, csv_file: Path | None
) -> tuple[list[Timing], BadInput | None]:
    """Segment frame by frame. Where the source breaks off, the results up to there stay and the error is returned."""
    timings: list[Timing] = []
    with ExitStack() as stack:
        # Nothing is written before the first frame is there: a bad INPUT leaves no empty OUTPUT.
        item: FrameItem | None = next(source)
        sink, rows = _open_output(stack, source, output, csv_file)
        advance = stack.enter_context(progress(source.path.name if source.path else "frames", source.length))
        while item is not None:
            result = segmenter(item.frame)
            found = measure(result.mask, segmenter.classes, item.pixel_size_mm)
            text = "; ".join(str(m) for m in found if m.area_px)
            sink.write(item, result.mask, draw(item.frame, result.mask, text=text or None))
            if rows:
                _write_rows(rows, item, found)
            timings.append(result.timing)
            advance()
            try:
                item = next(source, None)
            except BadInput as error:
                return timings, error
    return timings, None


def _open_output(
    stack: ExitStack, source: FrameSource, output: Path, csv_file: Path | None
) -> tuple[_Output, IO[str] | None]:
    sink: _Output
    if output.suffix.lower() in CLIP_SUFFIXES:
        sink = _ClipOutput(stack.enter_context(ClipWriter(output, source.rate_hz or _RATE_WITHOUT_CLOCK_HZ)))
    else:
        _prepare_folder(output)
        sink = _FolderOutput(output)
        csv_file = csv_file or output / RESULTS
    if csv_file is None:
        return sink, None
    try:
        rows = stack.enter_context(csv_file.open("w", newline="", encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{csv_file} cannot be written: {error.strerror}") from error
    csv.writer(rows).writerow(_COLUMNS)
    return sink, rows


def _prepare_folder(path: Path) -> None:
    try:
        for folder in (path / "masks", path / "overlays"):
            folder.mkdir(parents=True, exist_ok=True)
        # Written first, so that a run that is killed leaves a folder that the next one knows as its own.
        if not (path / RESULTS).exists():
            (path / RESULTS).touch()
        for name in _names_of_last_run(path / RESULTS):
            for folder in (path / "masks", path / "overlays"):
                (folder / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}; choose another -o") from error


def _names_of_last_run(results: Path) -> set[str]:
    with results.open(newline="", encoding="utf-8", errors="replace") as stream:
        names = {row.get("frame") or "" for row in csv.DictReader(stream)}
    return {n for n in names if n and Path(n).name == n}


def _write_rows(rows: IO[str], item: FrameItem, found: Sequence[Measurement]) -> None:
    time_s = _figure(item.time_s, 4)
    csv.writer(rows).writerows(
        (item.name, item.index, time_s, m.label, m.area_px, _figure(m.area_mm2, 2), _figure(m.circumference_mm, 2))
        for m in found
    )


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _closing_line(timings: Sequence[Timing], segmenter: Segmenter, output: Path) -> str:
    figures = ", ".join(f"{stage} {np.median([getattr(t, stage) for t in timings]):.2f}" for stage in _STAGES)
    frames = "1 frame" if len(timings) == 1 else f"{len(timings)} frames"
    ran = segmenter.execution
    where = f"{segmenter.artifact.name} on {segmenter.runtime} {segmenter.device}, ran in {ran.precision}"
    return f"{frames}, median ms: {figures} ({where}); results in {output}"
