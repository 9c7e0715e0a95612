"""How far a result is from its source, frame by frame. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeseg import metrics
from edgeseg.dataset import Sample
from edgeseg.evidence import Gates, Parity
from edgeseg.preprocess import area_of, to_input, to_mask
from edgeseg.strata import Pick, mean, strata
from edgeseg.types import Array, Frame, Layout, Mask, Preprocess, TensorSpec

_FEWEST_EXAMS = 2
RunLogits = Callable[[Array], Array]
"""Raw pixels [1, C, H, W] float32 to logits [1, L, h, w] float32."""


@dataclass(frozen=True, slots=True)
class ReferenceFrame:
    """A frame and what the source made of it.

    Attributes:
        frame: [H, W] or [H, W, 3] uint8.
        logits: the source's logits [1, L, h, w] float32.
        mask: the source's mask [H, W] uint8.
        truth: the reference mask [H, W] uint8, or None.
        sample: where the frame is from, with its pixel size and reference circumference; or None.
    """

    frame: Frame
    logits: Array
    mask: Mask
    truth: Mask | None = None
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """What one frame says of an artifact, as numbers: the raw samples behind a `Parity`. None is not known.

    Attributes:
        name: of the frame: its file name, or its number where it has none.
        exam: empty where not known.
        agreement, dice_source, dice, logit_error, sqnr_db: as in `Parity`.
        source_dice: Dice of the source's mask against the reference mask.
        diagonal_px: of the frame.
        hd95_px, hd95_mm: 95th percentile Hausdorff distance to the source's mask.
        area, source_area: share of the frame's pixels that are foreground, of the artifact and of the source.
        truth_area: the same of the reference mask.
        area_difference: pixels gained or lost over the pixels of the source, or of the reference mask where that has
            more, because a structure that the source missed is no measure; None where neither has foreground.
        area_difference_mm2: in mm^2; None without a pixel size.
        false_positive: share of the pixels that are foreground only for the artifact, and not in the reference mask.
        shift_px: displacement (x, y) of the centre of the foreground from the source's; None where one is empty.
        hc_error_mm, source_hc_error_mm: absolute error of the head circumference, of the artifact and of the source.
        hc_difference_mm: absolute difference of the two circumferences; needs the pixel size alone.
    """

    name: str
    exam: str
    agreement: float
    dice_source: float
    diagonal_px: float
    hd95_px: float
    area: float
    source_area: float
    false_positive: float
    area_difference: float | None = None
    shift_px: tuple[float, float] | None = None
    dice: float | None = None
    source_dice: float | None = None
    truth_area: float | None = None
    hd95_mm: float | None = None
    area_difference_mm2: float | None = None
    hc_error_mm: float | None = None
    source_hc_error_mm: float | None = None
    hc_difference_mm: float | None = None
    logit_error: float | None = None
    sqnr_db: float | None = None

    @property
    def structure_area(self) -> float:
        """Share of the pixels that is foreground: by the reference mask, else by the source's."""
        return self.source_area if self.truth_area is None else self.truth_area

    @property
    def dice_drop(self) -> float | None:
        """The source's Dice minus the artifact's."""
        return None if self.dice is None or self.source_dice is None else self.source_dice - self.dice

    @property
    def hc_increase_mm(self) -> float | None:
        """The artifact's error minus the source's."""
        own, source = self.hc_error_mm, self.source_hc_error_mm
        return None if own is None or source is None else own - source

    @property
    def hd95_share(self) -> float:
        """HD95 over the diagonal of the frame."""
        return self.hd95_px / self.diagonal_px

    @property
    def one_empty(self) -> bool:
        """Whether exactly one of the two masks has no foreground."""
        return (self.area == 0) != (self.source_area == 0)


@dataclass(slots=True)
class Comparison:
    """Accumulates the differences of one artifact over frames; of a frame only its figures are kept.

    Attributes:
        hc_offset_px: of the reference masks, see `metrics.outline_offset_px`.
        frames: one for each frame, in the order they were added.
    """

    hc_offset_px: float = 0.0
    frames: list[FrameDifference] = field(default_factory=list)
    _signal: float = 0.0
    _noise: float = 0.0

    def add(self, reference: ReferenceFrame, logits: Array, mask: Mask) -> FrameDifference:
        """Take in one frame's logits [1, L, h, w] and mask [H, W]; returns its figures."""
        figures: dict[str, Any] = {**_mask_figures(reference, mask), **_task_figures(reference, mask)}
        figures.update(_circumferences(reference, mask, self.hc_offset_px))
        if logits.shape == reference.logits.shape:
            expected = reference.logits.astype(np.float64)
            signal, noise = float(np.sum(expected**2)), float(np.sum((expected - logits) ** 2))
            self._signal, self._noise = self._signal + signal, self._noise + noise
            figures["logit_error"] = metrics.logit_error(reference.logits, logits)
            figures["sqnr_db"] = metrics.limited_db(signal, noise)
        sample = reference.sample
        name = sample.name if sample else f"{len(self.frames):03d}"
        # A folder without exam ids has the file's name in their place.
        exam = sample.exam if sample and sample.exam != sample.name else ""
        frame = FrameDifference(name, exam, **figures)
        self.frames.append(frame)
        return frame

    @property
    def sqnr_db(self) -> float | None:
        """Over all frames together; limited, so that equal logits stay a number in JSON. None as in `Parity`."""
        known = any(f.sqnr_db is not None for f in self.frames)
        return metrics.limited_db(self._signal, self._noise) if known else None

    def parity(self, runtime: str, small_share: float = Gates().small_share) -> Parity:
        """The result; `small_share` as in `Gates`. Raises ValueError where no frame was added."""
        frames = self.frames
        if not frames:
            raise ValueError("no frame was added to the comparison")
        return Parity(
            runtime=runtime,
            frames=len(frames),
            logit_error=max(_known(frames, lambda f: f.logit_error), default=None),
            sqnr_db=self.sqnr_db,
            agreement=float(np.mean([f.agreement for f in frames])),
            dice_source=float(np.mean([f.dice_source for f in frames])),
            dice=mean(frames, lambda f: f.dice),
            dice_drop=mean(frames, lambda f: f.dice_drop),
            worst_dice=min(_known(frames, lambda f: f.dice), default=None),
            worst_dice_source=min(_known(frames, lambda f: f.source_dice), default=None),
            hc_increase_mm=mean(frames, lambda f: f.hc_increase_mm),
            hc_difference_mm=mean(frames, lambda f: f.hc_difference_mm),
            hd95_px=mean(frames, lambda f: f.hd95_px),
            hd95_mm=mean(frames, lambda f: f.hd95_mm),
            hd95_share=mean(frames, lambda f: f.hd95_share),
            one_empty=sum(f.one_empty for f in frames),
            area_difference=mean(frames, lambda f: f.area_difference),
            area_difference_mm2=mean(frames, lambda f: f.area_difference_mm2),
            shift_px=_shift(frames, share=False),
            shift_share=_shift(frames, share=True),
            dice_drop_ci=_interval(frames, lambda f: f.dice_drop),
            hc_increase_ci=_interval(frames, lambda f: f.hc_increase_mm),
            hd95_ci=_interval(frames, lambda f: f.hd95_share),
            area_difference_ci=_interval(frames, lambda f: f.area_difference),
            strata=strata(frames, small_share),
        )


def _mask_figures(reference: ReferenceFrame, mask: Mask) -> dict[str, Any]:
    """The distance of a mask [H, W] from the source's."""
    table = metrics.overlap(mask, reference.mask)
    total, sizes, source_sizes = int(table.sum()), table.sum(1), table.sum(0)
    changed, foreground = int(np.abs(sizes - source_sizes)[1:].sum()), int(source_sizes[1:].sum())
    hd95_px = metrics.hausdorff95_px(mask, reference.mask)
    pixel_size = reference.sample.pixel_size_mm if reference.sample else None
    only = (mask > 0) & (reference.mask == 0)
    structure = foreground
    if reference.truth is not None:
        only &= reference.truth == 0
        structure = max(structure, int(np.count_nonzero(reference.truth)))
    return {
        "agreement": float(np.trace(table)) / total,
        "dice_source": metrics.dice_of(table),
        "diagonal_px": math.hypot(*mask.shape),
        "hd95_px": hd95_px,
        "hd95_mm": None if pixel_size is None else hd95_px * pixel_size,
        "area": float(sizes[1:].sum()) / total,
        "source_area": foreground / total,
        "area_difference": changed / structure if structure else None,
        "area_difference_mm2": None if pixel_size is None else changed * pixel_size**2,
        "false_positive": int(np.count_nonzero(only)) / total,
        "shift_px": metrics.shift_px(mask, reference.mask),
    }


def _task_figures(reference: ReferenceFrame, mask: Mask) -> dict[str, Any]:
    if reference.truth is None:
        return {}
    return {
        "dice": metrics.dice(mask, reference.truth),
        "source_dice": metrics.dice(reference.mask, reference.truth),
        "truth_area": float(np.mean(reference.truth > 0)),
    }


def _circumferences(reference: ReferenceFrame, mask: Mask, offset_px: float) -> dict[str, Any]:
    """A head that only one of the two finds counts with its whole circumference."""
    sample = reference.sample
    if sample is None or sample.pixel_size_mm is None:
        return {}
    own, source = (metrics.head_circumference_mm(m, sample.pixel_size_mm, offset_px) for m in (mask, reference.mask))
    found = own is not None or source is not None
    figures = {"hc_difference_mm": abs((own or 0.0) - (source or 0.0)) if found else None}
    if sample.hc_mm_reference is not None:
        figures["hc_error_mm"] = abs((own or 0.0) - sample.hc_mm_reference)
        figures["source_hc_error_mm"] = abs((source or 0.0) - sample.hc_mm_reference)
    return figures


def _known(frames: Sequence[FrameDifference], pick: Pick) -> list[float]:
    return [value for frame in frames if (value := pick(frame)) is not None]


def _shift(frames: Sequence[FrameDifference], *, share: bool) -> float | None:
    """By the medians of x and y: a spot on a few frames moves a mean, a wrong resize moves all frames."""
    units = [f.diagonal_px if share else 1.0 for f in frames]
    shifts = [(f.shift_px[0] / u, f.shift_px[1] / u) for f, u in zip(frames, units, strict=True) if f.shift_px]
    return math.hypot(*np.median(shifts, 0)) if shifts else None


def _interval(frames: Sequence[FrameDifference], pick: Pick) -> tuple[float, float] | None:
    """Of a difference from the source, which is paired by frame already; None where the exams are not known."""
    pairs = [(value, frame.exam or frame.name) for frame in frames if (value := pick(frame)) is not None]
    if not any(frame.exam for frame in frames) or len({exam for _, exam in pairs}) < _FEWEST_EXAMS:
        return None
    return metrics.bootstrap_interval(*zip(*pairs, strict=True))


def reference_frame(
    frame: Frame, truth: Mask | None, preprocess: Preprocess, source: RunLogits, sample: Sample | None = None
) -> ReferenceFrame:
    """Run the source over one frame; its logits are copied, because a session may overwrite them."""
    area = area_of(frame, preprocess)
    logits = np.array(source(to_input(frame, preprocess, area=area)))
    return ReferenceFrame(frame, logits, to_mask(logits, frame.shape, area=area), truth, sample)


def compare(
    references: Sequence[ReferenceFrame],
    preprocess: Preprocess,
    run: RunLogits,
    runtime: str,
    hc_offset_px: float = 0.0,
    small_share: float = Gates().small_share,
) -> Parity:
    """Run an artifact over the frames of its source and measure the difference."""
    comparison = Comparison(hc_offset_px)
    for reference in references:
        area = area_of(reference.frame, preprocess)
        logits = run(to_input(reference.frame, preprocess, area=area))
        comparison.add(reference, logits, to_mask(logits, reference.frame.shape, area=area))
    return comparison.parity(runtime, small_share)


def nchw_runner(
    run: Callable[[dict[str, Array]], object], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> RunLogits:
    """A session's `run` as a function of NCHW pixels that returns NCHW logits, whatever its own layout is."""
    source, target = inputs[0], outputs[0]

    def logits(pixels: Array) -> Array:
        if source.layout is Layout.NHWC:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        output: Array = run({source.name: pixels})[target.name]  # type: ignore[index]
        return output.transpose(0, 3, 1, 2) if target.layout is Layout.NHWC else output

    return logits
