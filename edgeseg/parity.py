"""How far a result is from its source, frame by frame, and whether that is within the gates. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeseg import metrics
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
    """

    frame: Frame
    logits: Array
    mask: Mask
    truth: Mask | None = None


@dataclass(slots=True)
class Comparison:
    """Accumulates the differences of one artifact over frames."""

    signal: float = 0.0
    noise: float = 0.0
    errors: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    dice_source: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    source_dice: list[float] = field(default_factory=list)

    def add(self, reference: ReferenceFrame, logits: Array, mask: Mask) -> None:
        """Take in one frame's logits [1, L, h, w] and mask [H, W]."""
        expected = reference.logits.astype(np.float64)
        self.signal += float(np.sum(expected**2))
        self.noise += float(np.sum((expected - logits) ** 2))
        self.errors.append(metrics.logit_error(reference.logits, logits))
        self.agreements.append(metrics.agreement(mask, reference.mask))
        self.dice_source.append(metrics.dice(mask, reference.mask))
        if reference.truth is not None:
            self.dice.append(metrics.dice(mask, reference.truth))
            self.source_dice.append(metrics.dice(reference.mask, reference.truth))

    @property
    def sqnr_db(self) -> float:
        """Over all frames together; limited, so that equal logits stay a number in JSON."""
        return min(SQNR_LIMIT_DB, metrics.ratio_db(self.signal, self.noise))

    def parity(self, runtime: str) -> Parity:
        """The result. Raises ValueError where no frame was added."""
        dice = float(np.mean(self.dice)) if self.dice else None
        return Parity(
            runtime=runtime,
            frames=len(self.errors),
            logit_error=max(self.errors),
            sqnr_db=self.sqnr_db,
            agreement=float(np.mean(self.agreements)),
            dice_source=float(np.mean(self.dice_source)),
            dice=dice,
            dice_drop=None if dice is None else float(np.mean(self.source_dice)) - dice,
        )


def reference_frames(
    frames: Iterable[tuple[Frame, Mask | None]], preprocess: Preprocess, source: RunLogits
) -> list[ReferenceFrame]:
    """Run the source over frames (with their reference masks, where known)."""
    return [reference_frame(frame, truth, preprocess, source) for frame, truth in frames]


def reference_frame(frame: Frame, truth: Mask | None, preprocess: Preprocess, source: RunLogits) -> ReferenceFrame:
    """Run the source over one frame; its logits are copied, because a session may overwrite them."""
    logits = np.array(source(to_input(frame, preprocess)))
    return ReferenceFrame(frame, logits, to_mask(logits, frame.shape), truth)


def compare(references: Sequence[ReferenceFrame], preprocess: Preprocess, run: RunLogits, runtime: str) -> Parity:
    """Run an artifact over the frames of its source and measure the difference."""
    comparison = Comparison()
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
    """The first gate that a measurement fails, with the figure and the limit; None where it passes them all."""
    exact = precision is Precision.FP32
    limits = (
        ("logit error", parity.logit_error, gates.logit_error_max if exact else None, True, ".2e"),
        ("mask agreement", parity.agreement, gates.agreement_min, False, ".5f"),
        ("SQNR dB", parity.sqnr_db, gates.sqnr_db_min, False, ".1f"),
        ("Dice drop", parity.dice_drop, gates.dice_drop_max, True, ".4f"),
    )
    for name, value, limit, upper, style in limits:
        if limit is None or value is None:
            continue
        # Written so that NaN fails.
        if not (value <= limit if upper else value >= limit):
            return f"{name} {value:{style}}, gate {'<=' if upper else '>='} {limit:g}"
    return None
