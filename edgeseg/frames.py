"""Images, folders, clips and DICOM as one iterator of frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.clips import Clip, is_clip
from edgeseg.errors import BadInput
from edgeseg.frame_index import INDEX, figure_of, read_index
from edgeseg.frame_source import Counts, FrameItem, FrameSource, SourceKind, safe_name
from edgeseg.images import is_image, list_files, list_images, read_head, read_image

if TYPE_CHECKING:
    from edgeseg.dicom import DicomFile

__all__ = ["FrameItem", "FrameSource", "SourceKind", "open_frames", "read_image", "safe_name"]


def open_frames(path: Path | str) -> FrameSource:
    """Open an image, a folder of images, a clip or a DICOM file. What a file is, its content decides, not its name.

    A folder gives its PNG, JPEG, BMP and TIFF files in natural order; a folder with `images/` gives those, with the
    pixel sizes of its `index.csv`; a folder without any of them its DICOM files, frame by frame. A clip or cine that
    ends early gives what is there and then raises BadInput; damaged frames in its middle are passed over and counted.

    Raises:
        BadInput: here or at the frame concerned, naming the path: missing, empty, damaged, truncated or of an
            unknown kind.
        MissingDependency: a DICOM file without the extra `dicom`.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    head = read_head(path, 132)
    if _is_dicom(head):
        return _open_dicom(path)
    if is_image(head):
        return FrameSource(path, SourceKind.IMAGE, _stills([path], [None]), length=1, reopen=lambda: open_frames(path))
    if is_clip(head):
        return _open_clip(path)
    raise BadInput(f"{path} is of an unknown kind, expected PNG, JPEG, BMP, TIFF, MP4, AVI, MKV or DICOM")


def _open_folder(path: Path) -> FrameSource:
    folder = path / "images" if (path / "images").is_dir() else path
    try:
        images = list_images(folder)
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}") from error
    if not images:
        return _open_dicom_folder(path)
    rows = read_index(path / INDEX) if folder != path else {}
    items = _stills(images, [figure_of(rows.get(p.name, {}), "pixel_size_mm") for p in images])
    return FrameSource(path, SourceKind.FOLDER, items, length=len(images), reopen=lambda: _open_folder(path))


def _open_dicom_folder(path: Path) -> FrameSource:
    # The index of a DICOM medium is a DICOM file too, without a picture.
    files = [p for p in list_files(path) if p.name != "DICOMDIR" and p.stat().st_size and _is_dicom(read_head(p, 132))]
    if not files:
        raise BadInput(f"{path} has no images, expected PNG, JPEG, BMP, TIFF or DICOM files")
    counts = Counts()
    return FrameSource(
        path,
        SourceKind.FOLDER,
        _cines(files, counts),
        counts=counts,
        reopen=lambda: _open_folder(path),
    )


def _cines(files: Sequence[Path], counts: Counts) -> Iterator[FrameItem]:
    index = 0
    for file, name in zip(files, _unique_names(files), strict=True):
        cine = _dicom_file(file)
        # Numbered all of them: one file may be called what a frame of another one would be.
        for item in _dicom_items(cine, f"{name}-{{:06d}}", counts):
            yield replace(item, index=index + item.index)
        index += cine.length


def _is_dicom(head: bytes) -> bool:
    # First of all kinds: the 128 bytes before the mark are free, and often those of a TIFF.
    return head[128:132] == b"DICM"


def _stills(paths: Sequence[Path], sizes: Sequence[float | None]) -> Iterator[FrameItem]:
    for index, (path, name, size) in enumerate(zip(paths, _unique_names(paths), sizes, strict=True)):
        yield FrameItem(read_image(path), name, index, pixel_size_mm=size)


def _unique_names(paths: Sequence[Path]) -> list[str]:
    # a.png and a.jpg, or names that differ only in what a safe name leaves out, must not overwrite each other.
    # Compared without case: the results may lie on a file system that ignores it.
    stems = [safe_name(p.stem) for p in paths]
    times = Counter(s.casefold() for s in stems)
    names = [s if times[s.casefold()] == 1 else f"{s}-{i:06d}" for i, s in enumerate(stems)]
    # A file may already be called what another one was renamed to.
    return names if len({n.casefold() for n in names}) == len(names) else [f"{i:06d}-{s}" for i, s in enumerate(stems)]


def _open_clip(path: Path) -> FrameSource:
    clip, counts = Clip(path), Counts()
    stem = safe_name(path.stem)
    items = (FrameItem(frame, f"{stem}-{i:06d}", i, time_s) for i, frame, time_s in clip.frames(counts))
    return FrameSource(
        path,
        SourceKind.CLIP,
        items,
        length=clip.length,
        rate_hz=clip.rate_hz,
        counts=counts,
        close=clip.close,
        reopen=lambda: _open_clip(path),
    )


def _open_dicom(path: Path) -> FrameSource:
    file, counts = _dicom_file(path), Counts()
    stem = safe_name(path.stem)
    numbered = f"{stem}-{{:06d}}" if file.length > 1 else stem
    return FrameSource(
        path,
        SourceKind.DICOM,
        _dicom_items(file, numbered, counts),
        length=file.length,
        rate_hz=file.rate_hz,
        counts=counts,
        reopen=lambda: _open_dicom(path),
    )


def _dicom_file(path: Path) -> DicomFile:
    # Imported here: pydicom is an extra.
    from edgeseg.dicom import DicomFile

    return DicomFile(path)


def _dicom_items(file: DicomFile, name: str, counts: Counts) -> Iterator[FrameItem]:
    for index, frame in file.frames(counts):
        yield FrameItem(frame, name.format(index), index, file.time_s(index), file.pixel_size_mm)
