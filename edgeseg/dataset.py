"""A folder of frames: `images/*.png`, where known `masks/*.png` of the same names, and an optional `index.csv`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg import metrics
from edgeseg.errors import BadInput
from edgeseg.frame_index import INDEX, figure_of, read_index
from edgeseg.images import read_image
from edgeseg.types import Frame, Mask

_SPLIT_COLUMNS = ("split", "suggested_split")


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of a folder.

    Attributes:
        name: file name of the image.
        image: path of the image.
        mask: path of the reference mask, or None.
        split: name of the split, or "" where the folder has none.
        exam: what must stay in one split and be drawn together by a bootstrap; the file name where unknown.
        pixel_size_mm, hc_mm_reference: from index.csv, or None.
    """

    name: str
    image: Path
    mask: Path | None
    split: str = ""
    exam: str = ""
    pixel_size_mm: float | None = None
    hc_mm_reference: float | None = None

    def read_frame(self) -> Frame:
        """The frame: [H, W] or [H, W, 3] uint8."""
        return read_image(self.image)

    def read_mask(self, classes: int = 2) -> Mask:
        """The reference mask [H, W] uint8, class indices below `classes`.

        A two-class mask may be stored as 0/1 or 0/255. Raises BadInput for other values, or where there is no mask.
        """
        if self.mask is None:
            raise BadInput(f"{self.image} has no mask, expected masks/{self.name} beside images/")
        mask = read_image(self.mask)
        if mask.ndim != 2:
            raise BadInput(f"{self.mask} has shape {mask.shape}, expected a gray or 1-bit PNG of class indices")
        top = int(mask.max())
        if classes == 2 and top == 255:
            if not np.isin(mask, (0, 255)).all():
                raise BadInput(f"{self.mask} has values between 0 and 255, expected only 0 and 255, or class indices")
            return (mask // 255).astype(np.uint8)
        if top >= classes:
            raise BadInput(f"{self.mask} has class index {top}, expected at most {classes - 1}")
        return mask


    def circumference_error_mm(self, mask: Mask, offset_px: float) -> float | None:
        """Absolute, of the head in a mask [H, W]; None where the pixel size or the reference is not known.

        A head that was not found errs by its whole circumference.
        """
        if self.pixel_size_mm is None or self.hc_mm_reference is None:
            return None
        measured = metrics.head_circumference_mm(mask, self.pixel_size_mm, offset_px)
        return abs((measured or 0.0) - self.hc_mm_reference)


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """The samples of a folder, or of one of its splits, in the order of their names."""

    path: Path
    samples: tuple[Sample, ...]
    split: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def splits(self) -> frozenset[str]:
        """The names of the splits in this folder."""
        return frozenset(s.split for s in self.samples if s.split)

    @property
    def has_masks(self) -> bool:
        """Whether every frame has a reference mask."""
        return all(s.mask is not None for s in self.samples)

    def select(self, split: str) -> FrameFolder:
        """Only the frames of one split. Raises BadInput where the folder has no such split."""
        chosen = tuple(s for s in self.samples if s.split == split)
        if not chosen:
            known = ", ".join(sorted(self.splits)) or "none; index.csv has no split column"
            raise BadInput(f"{self.path} has no split {split!r} (splits: {known})")
        return FrameFolder(self.path, chosen, split)

    def prefer(self, *splits: str) -> FrameFolder:
        """The first of these splits that exists, or all frames of a folder without any of them."""
        for split in splits:
            if split in self.splits:
                return self.select(split)
        return self

    def spread(self, count: int) -> FrameFolder:
        """At most `count` frames, evenly spaced over the folder."""
        if count >= len(self.samples):
            return self
        picks = evenly_spaced(len(self.samples), count)
        return FrameFolder(self.path, tuple(self.samples[i] for i in picks), self.split)

    def sha256(self) -> str:
        """Hash over the names and contents of all images and masks: equal for equal data, wherever it lies."""
        total = hashlib.sha256()
        for sample in self.samples:
            for path in (sample.image, sample.mask):
                if path is not None:
                    total.update(f"{path.parent.name}/{path.name}\0".encode())
                    total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()


def read_folder(path: Path | str, *, need_masks: bool = False) -> FrameFolder:
    """List the frames of a folder.

    Args:
        path: has images/*.png (and masks/*.png, index.csv with the columns file, split, pixel_size_mm,
            hc_mm_reference and exam_id, each optional but the first).
        need_masks: every frame must have a mask.

    Raises:
        BadInput: where there are no images, a mask is missing or belongs to no image, or index.csv names a file that
            is not there.
    """
    root = Path(path)
    images = sorted((root / "images").glob("*.png"))
    if not images:
        raise BadInput(f"{root} has no frames, expected PNG files in {root / 'images'}")
    masks = {p.name: p for p in (root / "masks").glob("*.png")}
    names = {p.name for p in images}
    if orphans := sorted(masks.keys() - names):
        raise BadInput(f"{root / 'masks' / orphans[0]} has no image of the same name ({len(orphans)} such masks)")
    if masks or need_masks:
        bare = sorted(names - masks.keys())
        if bare and (need_masks or len(bare) < len(names)):
            raise BadInput(f"{root / 'images' / bare[0]} has no mask of the same name ({len(bare)} such frames)")
    rows = read_index(root / INDEX)
    _check_named(root / INDEX, rows, names)
    return FrameFolder(root, tuple(_sample(p, masks.get(p.name), rows.get(p.name, {})) for p in images))


def _check_named(index: Path, named: Iterable[str], names: set[str]) -> None:
    if missing := sorted(set(named) - names):
        raise BadInput(
            f"{index} names {missing[0]}, which is not in {index.parent / 'images'} ({len(missing)} such rows)"
        )


def _sample(image: Path, mask: Path | None, row: dict[str, str]) -> Sample:
    return Sample(
        name=image.name,
        image=image,
        mask=mask,
        split=next((row[c] for c in _SPLIT_COLUMNS if row.get(c)), ""),
        exam=row.get("exam_id") or image.name,
        pixel_size_mm=figure_of(row, "pixel_size_mm"),
        hc_mm_reference=figure_of(row, "hc_mm_reference"),
    )


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` indices below `length`, from the first to the last."""
    return [int(i) for i in np.linspace(0, length - 1, min(count, length)).round()]


def read_pair(sample: Sample, classes: int) -> tuple[Frame, Mask | None]:
    """A frame with its mask, where it has one; raises BadInput where the mask's size is not the frame's."""
    frame = sample.read_frame()
    return frame, None if sample.mask is None else _mask_of(frame, sample, classes)


def read_all(samples: Sequence[Sample], classes: int) -> list[tuple[Frame, Mask]]:
    """Frames with their masks; raises BadInput where one is missing, or its size is not its frame's."""
    frames = ((sample.read_frame(), sample) for sample in samples)
    return [(frame, _mask_of(frame, sample, classes)) for frame, sample in frames]


def _mask_of(frame: Frame, sample: Sample, classes: int) -> Mask:
    mask = sample.read_mask(classes)
    if frame.shape[:2] != mask.shape:
        raise BadInput(f"{sample.mask} has size {mask.shape}, its image {frame.shape[:2]}")
    return mask


def outline_offset(folder: FrameFolder, classes: int) -> float:
    """How far a folder's filled masks reach beyond the outline that was measured, in pixels; see `outline_offset_px`.

    From all its frames with a mask, a pixel size and a reference circumference; 0 where there are none. Never give it
    the frames that are judged.
    """
    known = [s for s in folder.samples if s.mask and s.pixel_size_mm and s.hc_mm_reference] if classes == 2 else []
    return metrics.outline_offset_px(
        [s.read_mask(classes) for s in known],
        [s.pixel_size_mm or 0.0 for s in known],
        [s.hc_mm_reference or 0.0 for s in known],
    )
