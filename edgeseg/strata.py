"""Differences where they hurt most: empty frames, small structures, the worst tenth of the frames, the worst exam.

A mean over all frames forgives a model that fails on a few of them. A stratum that the frames do not have is kept with
the reason, so that nobody takes it for tested.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.evidence import Parity, Stratum

if TYPE_CHECKING:
    from edgeseg.parity import FrameDifference

# Below this Dice to the reference masks the source has failed itself; how an artifact then differs from it is noise.
FAILED_DICE = 0.7
EMPTY, SMALL, WORST_TENTH, EXAM = "empty", "small", "worst-tenth", "exam"
_LARGEST = ("dice_drop", "hd95_share", "hd95_px", "area_difference", "false_positive")
_SMALLEST = ("agreement", "dice_source", "dice")

Pick = Callable[["FrameDifference"], float | None]


def mean(frames: Iterable[FrameDifference], pick: Pick) -> float | None:
    """The mean of a figure over the frames that have it; None where none has."""
    values = [value for frame in frames if (value := pick(frame)) is not None]
    return float(np.mean(values)) if values else None


def strata(frames: Sequence[FrameDifference], small_share: float) -> tuple[Stratum, ...]:
    """The four strata of a comparison, those that are missing too.

    Frames on which the source itself has failed are left out of all but `empty`; they stay in the means over all
    frames, in the Dice drop and the worst frame.

    Args:
        frames: all frames of a comparison.
        small_share: a frame is small where the foreground (of the reference mask, else of the source's) is above 0 and
            below this share of its pixels.
    """
    empty = [f for f in frames if f.source_area == 0]
    frames = [f for f in frames if f.source_dice is None or f.source_dice >= FAILED_DICE]
    small = [f for f in frames if 0 < f.structure_area < small_share]
    return (
        _stratum(
            EMPTY, empty, "no empty frames in the evaluation data: false positives on empty frames were not tested"
        ),
        _stratum(
            SMALL,
            small,
            f"no frames with a foreground below {small_share:.0%} of the pixels in the evaluation data: "
            "small structures were not tested",
        ),
        _stratum(WORST_TENTH, worst_tenth(frames), "no frames in the evaluation data: the worst tenth was not tested"),
        _worst_exam([f for f in frames if f.exam]),
    )


def worst_tenth(frames: Sequence[FrameDifference]) -> list[FrameDifference]:
    """The tenth of the frames (at least one) with the lowest Dice of the source against the reference masks.

    Those are the hardest ones, chosen without a look at the artifact. Where not all frames have a reference mask: the
    lowest Dice of the artifact's masks against the source's.
    """
    known = all(f.source_dice is not None for f in frames)
    ranked = sorted(frames, key=lambda f: f.source_dice if known and f.source_dice is not None else f.dice_source)
    return ranked[: math.ceil(len(ranked) / 10)]


def missing(parity: Parity) -> list[str]:
    """What was not tested, one sentence a stratum."""
    return [stratum.missing for stratum in parity.strata if stratum.missing]


def find(parity: Parity, name: str) -> Stratum | None:
    """The stratum of this name; None where a comparison has none, or no frames in it."""
    return next((s for s in parity.strata if s.name == name and s.frames), None)


def _stratum(name: str, frames: Sequence[FrameDifference], missing: str) -> Stratum:
    if not frames:
        return Stratum(name, 0, missing)
    return Stratum(
        name,
        len(frames),
        agreement=mean(frames, lambda f: f.agreement),
        dice_source=mean(frames, lambda f: f.dice_source),
        dice=mean(frames, lambda f: f.dice),
        dice_drop=mean(frames, lambda f: f.dice_drop),
        hd95_share=mean(frames, lambda f: f.hd95_share),
        hd95_px=mean(frames, lambda f: f.hd95_px),
        area_difference=mean(frames, lambda f: f.area_difference),
        false_positive=mean(frames, lambda f: f.false_positive),
    )


def _worst_exam(frames: Sequence[FrameDifference]) -> Stratum:
    """Each figure of the exam in which it is worst."""
    if not frames:
        return Stratum(
            EXAM, 0, "no exam ids in the evaluation data (index.csv, exam_id): the worst exam was not tested"
        )
    exams: dict[str, list[FrameDifference]] = defaultdict(list)
    for frame in frames:
        exams[frame.exam].append(frame)
    means = [_stratum(EXAM, group, "") for group in exams.values()]
    figures: dict[str, Any] = {"exams": len(exams)}
    for names, worst in ((_LARGEST, max), (_SMALLEST, min)):
        for name in names:
            values = [value for m in means if (value := getattr(m, name)) is not None]
            figures[name] = worst(values, default=None)
    # Every frame has a Dice to the source.
    figures["exam"] = min(zip(exams, means, strict=True), key=lambda pair: pair[1].dice_source or 0.0)[0]
    return Stratum(EXAM, len(frames), **figures)
