"""Where the results of a run go: a folder, a clip or a DICOM Segmentation object, and what is asked for beside them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.dicom_codes import SegmentCode
from edgeseg.dicom_seg import Algorithm, SegmentationWriter
from edgeseg.durable import new_file
from edgeseg.errors import BadInput
from edgeseg.frames import FrameItem, FrameSource, SourceKind, safe_name
from edgeseg.images import SUFFIXES
from edgeseg.measure import Measurement, contours
from edgeseg.overlay import CLIP_SUFFIXES, ClipWriter, draw, write_image
from edgeseg.types import Frame, Mask

RESULTS, CONTOURS, SEGMENTATION = "results.csv", "contours.json", "segmentation.dcm"
DICOM_SUFFIX = ".dcm"
_MASKS, _OVERLAYS, _CONFIDENCE = "masks", "overlays", "confidence"
_FIRST_COLUMNS = ("frame", "index", "time_s", "class", "area_px", "area_mm2", "circumference_mm")
_COLUMNS = (*_FIRST_COLUMNS, "long_axis_mm", "short_axis_mm", "centroid_x_px", "centroid_y_px")
_RATE_WITHOUT_CLOCK_HZ = 10.0
# Suffixes by which somebody means a file: a folder of that name is not what is expected.
_NOT_WRITTEN = SUFFIXES | {".gif", ".m4v", ".mkv", ".mov", ".webm"}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one frame.

    Attributes:
        item: the frame.
        mask: [H, W] uint8 class indices.
        found: what was measured.
        confidence: [K, H, W] float32; None where it was not asked for.
        stale: as `edgeseg.overlay.draw` has it.
    """

    item: FrameItem
    mask: Mask
    found: Sequence[Measurement]
    confidence: NDArray[np.float32] | None = None
    stale: str | None = None

    def overlay(self) -> Frame:
        """The frame with its mask and figures, [H, W, 3] uint8; drawn anew each time."""
        text = "; ".join(str(m) for m in self.found if m.area_px)
        return draw(self.item.frame, self.mask, text=text or None, stale=self.stale)


class Output(Protocol):
    """Takes the outcomes, one after the other."""

    def write(self, outcome: Outcome) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Wanted:
    """What results to write.

    Attributes:
        path: of a folder, a clip or a DICOM Segmentation object.
        csv_file: a file for the figures; a folder has them all the same.
        contours, confidence, dicom_seg: whether a folder gets these too.
        algorithm: what made the masks; needed for a DICOM Segmentation object.
        codes: coded terms of classes by name, for the same.
    """

    path: Path
    csv_file: Path | None = None
    contours: bool = False
    confidence: bool = False
    dicom_seg: bool = False
    algorithm: Algorithm | None = None
    codes: Mapping[str, SegmentCode] = field(default_factory=dict)


def check_output(path: Path, source: Path) -> None:
    """Raise BadInput unless results of `source` may be written to `path`.

    A file must not take the place of the source or of a folder. A folder must be new, empty or the result of an earlier
    run, so that a data set with a `masks` folder of its own is never overwritten; its name must not be that of a file.
    """
    if is_file_name(path):
        if path.is_dir():
            raise BadInput(f"{path} is a folder, expected the name of a file: choose another -o")
        if not path.parent.is_dir():
            raise BadInput(f"{path.parent} is not a folder, expected one for {path.name}: create it first")
        if _is_same(path, source):
            raise BadInput(f"{path} is what is segmented, it will not be overwritten: choose another -o")
        return
    if path.suffix.lower() in _NOT_WRITTEN and not path.is_dir():
        raise BadInput(f"{path} cannot be written as {path.suffix}, expected a folder or a name in .mp4, .avi or .dcm")
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file, expected a folder or a name in .mp4, .avi or .dcm: choose another -o")
    if path.is_dir() and any(path.iterdir()) and not _is_from_a_run(path):
        raise BadInput(f"{path} has files that no run made, they will not be touched: choose another -o")


def is_file_name(path: Path) -> bool:
    """Whether results at `path` are one file, a clip or a DICOM object, instead of a folder."""
    return path.suffix.lower() in (*CLIP_SUFFIXES, DICOM_SUFFIX)


def check_dicom(source: FrameSource, path: Path) -> Path:
    """The DICOM file behind a source. Raises BadInput where there is none to refer to from `path`."""
    if source.kind is not SourceKind.DICOM or source.path is None:
        given = f"{source.path or 'the one given'} ({source.kind})"
        raise BadInput(f"{path.name} has to refer to its source: expected a DICOM file as INPUT, not {given}")
    return source.path


def open_output(stack: ExitStack, source: FrameSource, wanted: Wanted, classes: Sequence[str]) -> Output:
    """Begin to write results.

    Args:
        stack: what is on it when it closes is complete; nothing half is left where it closes with an error.
        source: where the frames come from.
        wanted: what to write.
        classes: class names; index 0 is the background.

    Raises:
        BadInput: something cannot be written, or the source is no DICOM file and has to be.
        MissingDependency: highdicom is needed and not installed.
    """
    path, outputs = wanted.path, list[Output]()
    suffix = path.suffix.lower()
    # First, because it may refuse its source.
    if suffix == DICOM_SUFFIX or wanted.dicom_seg:
        target = path if suffix == DICOM_SUFFIX else path / SEGMENTATION
        outputs.append(_Segments(stack.enter_context(_segmentation(target, source, wanted, classes))))
    if suffix in CLIP_SUFFIXES:
        outputs.append(_Clip(stack.enter_context(ClipWriter(path, source.rate_hz or _RATE_WITHOUT_CLOCK_HZ))))
    elif suffix != DICOM_SUFFIX:
        _prepare_folder(path, wanted)
        outputs.append(_Folder(path))
        if wanted.confidence:
            outputs.append(_Confidence(path / _CONFIDENCE, classes))
        if wanted.contours:
            outputs.append(_Contours(stack.enter_context(_whole_file(path / CONTOURS)), classes, stack))
        outputs.append(_Figures(_open_figures(stack, path / RESULTS)))
    if wanted.csv_file and not _is_same(wanted.csv_file, path / RESULTS):
        outputs.append(_Figures(_open_figures(stack, wanted.csv_file)))
    return _All(outputs)


def _segmentation(target: Path, source: FrameSource, wanted: Wanted, classes: Sequence[str]) -> SegmentationWriter:
    assert wanted.algorithm is not None
    return SegmentationWriter(target, check_dicom(source, target), classes, wanted.algorithm, codes=wanted.codes)


class _All:
    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs

    def write(self, outcome: Outcome) -> None:
        for output in self._outputs:
            output.write(outcome)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._masks, self._overlays = path / _MASKS, path / _OVERLAYS

    def write(self, outcome: Outcome) -> None:
        write_image(self._masks / f"{outcome.item.name}.png", outcome.mask)
        write_image(self._overlays / f"{outcome.item.name}.png", outcome.overlay())


class _Clip:
    def __init__(self, writer: ClipWriter) -> None:
        self._writer = writer

    def write(self, outcome: Outcome) -> None:
        self._writer.write(outcome.overlay())


class _Segments:
    def __init__(self, writer: SegmentationWriter) -> None:
        self._writer = writer

    def write(self, outcome: Outcome) -> None:
        self._writer.write(outcome.item.index, outcome.mask)


class _Confidence:
    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        names = [safe_name(c) for c in classes]
        times = Counter(n.casefold() for n in names)
        self._names = [n if times[n.casefold()] == 1 else f"{i}-{n}" for i, n in enumerate(names)]

    def write(self, outcome: Outcome) -> None:
        assert outcome.confidence is not None
        for name, plane in zip(self._names[1:], outcome.confidence[1:], strict=True):
            picture = cv2.convertScaleAbs(plane, alpha=255)
            write_image(self._folder / f"{outcome.item.name}_{name}.png", picture)


class _Contours:
    """One JSON object, a line for each frame."""

    def __init__(self, stream: BinaryIO, classes: Sequence[str], stack: ExitStack) -> None:
        self._stream = stream
        self._classes = classes
        self._between = "\n"
        head = json.dumps({"schema": 1, "classes": list(classes[1:])}, ensure_ascii=False)
        self._put(head[:-1] + ', "frames": [')
        stack.callback(self._put, "\n]}\n")

    def write(self, outcome: Outcome) -> None:
        item = outcome.item
        found = zip(self._classes[1:], contours(outcome.mask, self._classes), strict=True)
        line = {
            "frame": item.name,
            "index": item.index,
            "time_s": item.time_s,
            "pixel_size_mm": item.pixel_size_mm,
            "contours": {label: [c.tolist() for c in outlines] for label, outlines in found},
        }
        self._put(self._between + json.dumps(line, ensure_ascii=False, separators=(",", ":")))
        self._between = ",\n"

    def _put(self, text: str) -> None:
        self._stream.write(text.encode())


class _Figures:
    def __init__(self, stream: IO[str]) -> None:
        self._rows = csv.writer(stream)
        self._rows.writerow(_COLUMNS)

    def write(self, outcome: Outcome) -> None:
        item = outcome.item
        for m in outcome.found:
            x, y = m.centroid_px or (None, None)
            millimetres = (m.area_mm2, m.circumference_mm, m.long_axis_mm, m.short_axis_mm, x, y)
            where = (item.name, item.index, _figure(item.time_s, 4), m.label, m.area_px)
            self._rows.writerow((*where, *(_figure(v, 2) for v in millimetres)))


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _open_figures(stack: ExitStack, path: Path) -> IO[str]:
    try:
        return stack.enter_context(path.open("w", newline="", encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    try:
        with new_file(path) as stream:
            yield stream
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error


def _is_from_a_run(path: Path) -> bool:
    try:
        with (path / RESULTS).open(encoding="utf-8", errors="replace") as stream:
            head = stream.readline().strip()
    except FileNotFoundError:
        return False
    return not head or tuple(head.split(","))[: len(_FIRST_COLUMNS)] == _FIRST_COLUMNS


def _prepare_folder(path: Path, wanted: Wanted) -> None:
    folders = [path / _MASKS, path / _OVERLAYS] + [path / _CONFIDENCE] * wanted.confidence
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        # Written first, so that a run that is killed leaves a folder that the next one knows as its own.
        if not (path / RESULTS).exists():
            (path / RESULTS).touch()
        _clear(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}; choose another -o") from error


def _clear(path: Path) -> None:
    """Remove what the last run wrote, frame by frame as its figures say."""
    for name in _names_of_last_run(path / RESULTS):
        for folder in (path / _MASKS, path / _OVERLAYS):
            (folder / f"{name}.png").unlink(missing_ok=True)
        for picture in (path / _CONFIDENCE).glob(f"{name}_*.png"):
            picture.unlink()
    for file in (CONTOURS, SEGMENTATION):
        (path / file).unlink(missing_ok=True)


def _names_of_last_run(results: Path) -> set[str]:
    with results.open(newline="", encoding="utf-8", errors="replace") as stream:
        names = {row.get("frame") or "" for row in csv.DictReader(stream)}
    return {n for n in names if n and Path(n).name == n}
