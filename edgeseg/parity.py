"""How far a result is from its source, frame by frame, and whether that is within the gates. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeseg import metrics
from edgeseg.dataset import Sample
from edgeseg.preprocess import to_input, to_mask
from edgeseg.types import Array, Frame, Gates, Layout, Mask, Parity, Precision, Preprocess, TensorSpec

SQNR_LIMIT_DB = 200.0
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


@dataclass(slots=True)
class Comparison:
    """Accumulates the differences of one artifact over frames.

    Attributes:
        hc_offset_px: of the reference masks, see `metrics.outline_offset_px`.
    """

    hc_offset_px: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    errors: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    dice_source: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    source_dice: list[float] = field(default_factory=list)
    hc_increases: list[float] = field(default_factory=list)

    def add(self, reference: ReferenceFrame, logits: Array, mask: Mask) -> None:
        """Take in one frame's logits [1, L, h, w] and mask [H, W]."""
        if logits.shape == reference.logits.shape:
            expected = reference.logits.astype(np.float64)
            self.signal += float(np.sum(expected**2))
            self.noise += float(np.sum((expected - logits) ** 2))
            self.errors.append(metrics.logit_error(reference.logits, logits))
        self.agreements.append(metrics.agreement(mask, reference.mask))
        self.dice_source.append(metrics.dice(mask, reference.mask))
        if reference.truth is not None:
            self.dice.append(metrics.dice(mask, reference.truth))
            self.source_dice.append(metrics.dice(reference.mask, reference.truth))
        if reference.sample is not None:
            own, source = (
                reference.sample.circumference_error_mm(m, self.hc_offset_px) for m in (mask, reference.mask)
            )
            if own is not None and source is not None:
                self.hc_increases.append(own - source)

    @property
    def sqnr_db(self) -> float | None:
        """Over all frames together; limited, so that equal logits stay a number in JSON. None as in `Parity`."""
        return None if not self.errors else min(SQNR_LIMIT_DB, metrics.ratio_db(self.signal, self.noise))

    def parity(self, runtime: str) -> Parity:
        """The result. Raises ValueError where no frame was added."""
        dice = float(np.mean(self.dice)) if self.dice else None
        return Parity(
            runtime=runtime,
            frames=len(self.agreements),
            logit_error=max(self.errors, default=None),
            sqnr_db=self.sqnr_db,
            agreement=float(np.mean(self.agreements)),
            dice_source=float(np.mean(self.dice_source)),
            dice=dice,
            dice_drop=None if dice is None else float(np.mean(self.source_dice)) - dice,
            worst_dice=min(self.dice, default=None),
            worst_dice_source=min(self.source_dice, default=None),
            hc_increase_mm=float(np.mean(self.hc_increases)) if self.hc_increases else None,
        )


def reference_frame(
    frame: Frame, truth: Mask | None, preprocess: Preprocess, source: RunLogits, sample: Sample | None = None
) -> ReferenceFrame:
    """Run the source over one frame; its logits are copied, because a session may overwrite them."""
    logits = np.array(source(to_input(frame, preprocess)))
    return ReferenceFrame(frame, logits, to_mask(logits, frame.shape), truth, sample)


def compare(
    references: Sequence[ReferenceFrame],
    preprocess: Preprocess,
    run: RunLogits,
    runtime: str,
    hc_offset_px: float = 0.0,
) -> Parity:
    """Run an artifact over the frames of its source and measure the difference."""
    comparison = Comparison(hc_offset_px)
    for reference in references:
        logits = run(to_input(reference.frame, preprocess))
        comparison.add(reference, logits, to_mask(logits, reference.frame.shape))
    return comparison.parity(runtime)


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


def failed_gate(parity: Parity, gates: Gates, precision: Precision) -> str | None:
    """The first gate that an artifact fails, with the figure and the limit; None where it passes them all."""
    exact = precision is Precision.FP32
    limits: tuple[_Limit, ...] = (
        ("logit error", parity.logit_error, gates.logit_error_max if exact else None, True, ".2e"),
        ("mask agreement", parity.agreement, gates.agreement_min, False, ".5f"),
        ("SQNR dB", parity.sqnr_db, gates.sqnr_db_min, False, ".1f"),
    )
    return _first_failed(limits) or failed_task_gate(parity, gates)


def failed_task_gate(parity: Parity, gates: Gates) -> str | None:
    """The same for what the network is for, which also holds where another network took the source's place."""
    worst = gates.worst_dice_min
    if worst is not None and parity.worst_dice_source is not None and parity.worst_dice_source < worst:
        worst = None
    return _first_failed(
        (
            ("Dice drop", parity.dice_drop, gates.dice_drop_max, True, ".4f"),
            ("head circumference error increase in mm", parity.hc_increase_mm, gates.hc_increase_max_mm, True, ".2f"),
            ("worst frame's Dice", parity.worst_dice, worst, False, ".3f"),
        )
    )


_Limit = tuple[str, float | None, float | None, bool, str]
"""Name, value, limit, whether it is an upper one, and the value's format."""


def _first_failed(limits: Sequence[_Limit]) -> str | None:
    for name, value, limit, upper, style in limits:
        if limit is None or value is None:
            continue
        # Written so that NaN fails.
        if not (value <= limit if upper else value >= limit):
            return f"{name} {value:{style}}, gate {'<=' if upper else '>='} {limit:g}"
    return None
