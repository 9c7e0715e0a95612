"""Images, folders, clips and DICOM as one iterator of frames."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeseg.clips import Clip, is_clip
from edgeseg.errors import BadInput
from edgeseg.frame_source import Counts, FrameItem, FrameSource, SourceKind, safe_name
from edgeseg.images import is_image, list_images, read_head, read_image

__all__ = ["FrameItem", "FrameSource", "SourceKind", "open_frames", "read_image", "safe_name"]


def open_frames(path: Path | str) -> FrameSource:
    """Open an image, a folder of images, a clip or a DICOM file. What a file is, its content decides, not its name.

    A folder gives its PNG, JPEG, BMP and TIFF files in natural order; a folder with `images/` gives those, with the
    pixel sizes of its `index.csv`. A clip or cine that ends early gives what is there and then raises BadInput.

    Raises:
        BadInput: here or at the frame concerned, naming the path: missing, empty, damaged, truncated or of an
            unknown kind.
        MissingDependency: a DICOM file without the extra `dicom`.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    head = read_head(path, 132)
    # DICOM first: the 128 bytes before its mark are free, and often those of a TIFF.
    if head[128:132] == b"DICM":
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
        raise BadInput(f"{folder} has no images, expected PNG, JPEG, BMP or TIFF files")
    sizes = _pixel_sizes(folder.parent / "index.csv") if folder != path else {}
    items = _stills(images, [sizes.get(p.name) for p in images])
    return FrameSource(path, SourceKind.FOLDER, items, length=len(images), reopen=lambda: _open_folder(path))


def _pixel_sizes(index: Path) -> dict[str, float]:
    if not index.is_file():
        return {}
    with index.open(newline="", encoding="utf-8") as stream:
        rows = [(r.get("file"), r.get("pixel_size_mm")) for r in csv.DictReader(stream)]
    try:
        return {name: float(size) for name, size in rows if name and size}
    except ValueError as error:
        raise BadInput(f"{index}: pixel_size_mm must be a number: {error}") from error


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
    # Imported here: pydicom is an extra.
    from edgeseg.dicom import DicomFile

    file, counts = DicomFile(path), Counts()
    stem = safe_name(path.stem)
    items = (
        FrameItem(
            frame,
            f"{stem}-{index:06d}" if file.length > 1 else stem,
            index,
            file.time_s(index),
            file.pixel_size_mm,
            area=file.area,
        )
        for index, frame in file.frames(counts)
    )
    return FrameSource(
        path,
        SourceKind.DICOM,
        items,
        length=file.length,
        rate_hz=file.rate_hz,
        counts=counts,
        reopen=lambda: _open_dicom(path),
    )
