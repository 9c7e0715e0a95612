"""What was measured and what is allowed: the evidence that a bundle carries, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stratum:
    """The differences of an artifact on some of the frames; each figure is the mean over them, as in `Parity`.

    Attributes:
        name: `empty` (the source's masks have no foreground), `small` (there is little of it, see
            `Gates.small_share`), `worst-tenth` (the tenth of the frames on which the source is worst) or `exam` (each
            figure of the exam in which its mean is worst). Frames on which the source itself fails (Dice to the
            reference mask below 0.7) are in `empty` only.
        frames: how many.
        missing: why nothing was tested, where there are no such frames.
        agreement, dice_source, dice, dice_drop, hd95_share, hd95_px, area_difference: as in `Parity`.
        false_positive: share of the pixels that are foreground in the artifact's masks, and neither in the source's
            nor in the reference masks.
        exams: number of exams, of `exam`.
        exam: the one with the lowest Dice to the source's masks.
    """

    name: str
    frames: int
    missing: str = ""
    agreement: float | None = None
    dice_source: float | None = None
    dice: float | None = None
    dice_drop: float | None = None
    hd95_share: float | None = None
    hd95_px: float | None = None
    area_difference: float | None = None
    false_positive: float | None = None
    exams: int | None = None
    exam: str = ""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an artifact is from its source, measured on real frames through one runtime.

    Figures are means over the frames unless said otherwise. Intervals are of 95 %, (low, high), paired by frame and
    bootstrapped by exam; None where the exams are not known, or there is only one.

    Attributes:
        runtime: the runtime it was measured with.
        frames: number of frames.
        logit_error: largest absolute logit difference over the range of the source's logits (1 is the whole range).
        sqnr_db: signal to quantization noise ratio of the logits, 10 log10(sum s^2 / sum (s - a)^2), in dB. Both are
            None for a network whose logits have another size than the source's.
        agreement: share of the frames' own pixels with the same class as the source's mask.
        dice_source: mean Dice between the artifact's and the source's masks.
        dice: mean Dice against the reference masks; None where there are none.
        dice_drop: the source's Dice minus the artifact's, on the same frames; None where there are no masks.
        worst_dice, worst_dice_source: the lowest Dice of a frame against the reference masks, of the artifact and of
            the source.
        hc_increase_mm: mean absolute error of the head circumference minus the source's, in mm; None where pixel
            sizes or reference circumferences are not known.
        hc_difference_mm: absolute difference of the head circumference from the source's, in mm; None where no pixel
            size is known.
        hd95_px, hd95_mm: 95th percentile Hausdorff distance between the artifact's and the source's masks; in mm of
            the frames whose pixel size is known.
        hd95_share: the same over the diagonal of the frame, which compares frames of any size.
        one_empty: number of frames on which exactly one of the two masks is empty; their distance is the diagonal.
        area_difference: pixels of foreground gained or lost, over those of the source, or of the reference mask where
            that has more; of the frames that have any.
        area_difference_mm2: the same in mm^2; of the frames whose pixel size is known.
        shift_px: length of the median displacement of the centre of the foreground: what a wrong resize does to all
            frames alike. None where no frame has foreground in both masks.
        shift_share: the same over the diagonal of the frame.
        dice_drop_ci, hc_increase_ci, hd95_ci, area_difference_ci: intervals; that of HD95 of `hd95_share`.
        strata: the same figures where they hurt most.
    """

    runtime: str
    frames: int
    logit_error: float | None
    sqnr_db: float | None
    agreement: float
    dice_source: float
    dice: float | None = None
    dice_drop: float | None = None
    worst_dice: float | None = None
    worst_dice_source: float | None = None
    hc_increase_mm: float | None = None
    hc_difference_mm: float | None = None
    hd95_px: float | None = None
    hd95_mm: float | None = None
    hd95_share: float | None = None
    one_empty: int | None = None
    area_difference: float | None = None
    area_difference_mm2: float | None = None
    shift_px: float | None = None
    shift_share: float | None = None
    dice_drop_ci: tuple[float, float] | None = None
    hc_increase_ci: tuple[float, float] | None = None
    hd95_ci: tuple[float, float] | None = None
    area_difference_ci: tuple[float, float] | None = None
    strata: tuple[Stratum, ...] = ()


@dataclass(frozen=True, slots=True)
class Execution:
    """What an engine really ran, from the engine's own records.

    Attributes:
        provider: the engine's name of what executed most layers, as in `CPUExecutionProvider`, `CPU`, `XNNPACK`.
        precision: `int8` where int8 kernels do at least half of the convolutions, else the float type they use.
        int8_layers: number of layers executed by int8 kernels.
        layers: number of layers executed; conversions between precisions and layouts are not layers.
        providers: layers per provider.
        precisions: layers per precision really executed, as in {"int8": 30, "fp32": 2}.
    """

    provider: str
    precision: str
    int8_layers: int
    layers: int
    providers: Mapping[str, int] = field(default_factory=dict)
    precisions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an artifact did on a runtime when it was made: the measure of every later self-test there.

    Attributes:
        runtime, version, device: where it was measured, and the engine's version.
        executed: what the engine ran.
        sqnr_db: on the golden frames, against the source's logits.
        agreement: share of the golden frames' own pixels with the same class as the source's mask, of the worst frame.
        sqnr_db_min, agreement_min: the tolerances a self-test holds this artifact to on this runtime.
    """

    runtime: str
    version: str
    device: str
    executed: Execution
    sqnr_db: float | None
    agreement: float
    sqnr_db_min: float | None
    agreement_min: float


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits on the difference from the source. None switches a limit off; one that nothing was measured for is silent.

    `logit_error_max` holds for fp32, the others for every precision. Dice alone forgives too much: a wrong model can
    score higher, and a mean hides the frames that are lost. The limits under `dice_drop_max` also hold between a
    distilled or pruned network and its source, where those above would have no meaning. docs/gates.md has the
    measurements behind the defaults.

    Attributes:
        logit_error_max, agreement_min, sqnr_db_min: as in `Parity`.
        hd95_max: of `Parity.hd95_share`.
        area_difference_max: of `Parity.area_difference`.
        shift_max: of `Parity.shift_share`.
        hc_difference_max_mm: of `Parity.hc_difference_mm`, where the frames have reference circumferences.
        small_dice_source_min, worst_tenth_dice_source_min, exam_dice_source_min: of `dice_source` of these strata.
        dice_drop_max, hc_increase_max_mm: as in `Parity`.
        worst_dice_min: where the source's own worst frame reaches it.
        exam_dice_drop_max: of the exam that loses most.
        empty_false_positive_max: of the share of the pixels of frames that are empty for the source.
        small_share: what is called small: a foreground below this share of the frame. Not a limit.
    """

    logit_error_max: float | None = 1e-3
    agreement_min: float | None = 0.995
    sqnr_db_min: float | None = 20.0
    hd95_max: float | None = 0.01
    area_difference_max: float | None = 0.01
    shift_max: float | None = 0.0005
    hc_difference_max_mm: float | None = 0.5
    small_dice_source_min: float | None = 0.9
    worst_tenth_dice_source_min: float | None = 0.97
    exam_dice_source_min: float | None = 0.9
    dice_drop_max: float | None = 0.005
    hc_increase_max_mm: float | None = 0.3
    worst_dice_min: float | None = 0.85
    exam_dice_drop_max: float | None = 0.1
    empty_false_positive_max: float | None = 0.001
    small_share: float = 0.05


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an artifact comes from: everything needed to make it again, by hash where it is a file.

    Attributes:
        source: what was loaded (kind, file hash, architecture and its options).
        training: the training record of the checkpoint, empty where unknown.
        calibration, evaluation: folder name, split, number of frames, hash of the frames.
        network: multiply-accumulates of one frame and parameters of the network in the artifacts, the hash of its
            weights, and of the file of the source it was made of.
        compression: how it came from the source by distillation and pruning, and the proof; empty where it is the
            source itself.
        steps: the conversion steps in order, each with its options and, by hash, its inputs (the network's weights or
            an earlier step's model), its outputs and the frames that they were measured on.
        tools: versions of the packages that took part.
        created: UTC time, ISO 8601.
        machine: processor and operating system of the conversion.
    """

    source: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    compression: dict[str, Any] = field(default_factory=dict)
    steps: tuple[dict[str, Any], ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    created: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """What one executed layer costs, by the engine's own clock.

    Attributes:
        name: the engine's; after fusion it may stand for several layers of the model.
        kind: the engine's name of the operation, as in `Convolution` or `QLinearConv`.
        precision: really executed, as in `int8` or `fp32`.
        time_us: median over runs, in microseconds.
        macs: multiply-accumulates of a convolution or matrix product, by the shapes the engine reports; None for
            other layers, and where the engine does not tell the shapes.
    """

    name: str
    kind: str
    precision: str
    time_us: float
    macs: int | None = None

    @property
    def gmacs_per_s(self) -> float | None:
        """10^9 multiply-accumulates a second; None where there are none, or the time is below the clock's step."""
        return self.macs / self.time_us / 1e3 if self.macs and self.time_us else None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of a set of timings, in ms."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    frames: int

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> Latency:
        """From per-call durations [N] float64 in seconds."""
        p50, p90, p99 = np.percentile(seconds, (50, 90, 99)) * 1e3
        return cls(float(p50), float(p90), float(p99), len(seconds))

    @property
    def fps(self) -> float:
        """Frames a second at the median."""
        return 1e3 / self.p50_ms
