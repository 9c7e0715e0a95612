"""A source as a teacher: fits smaller networks to what it says of pool frames, and scores them on held frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.converters.fit import Batch, Epoch, Fit, Schedule
from edgeseg.converters.pool import LabelledPool, to_size
from edgeseg.converters.provenance import tool_versions
from edgeseg.converters.source import Source, logits_of
from edgeseg.converters.train import segmentation_loss, validate
from edgeseg.converters.training_data import ValidationData
from edgeseg.dataset import FrameFolder
from edgeseg.errors import BadInput

_EPOCH_SAMPLES = 4096
"""After so many frames the weights are scored and the state is saved."""

ReportEpoch = Callable[[str, Epoch], None]


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a network learns from the pool; the options of the same names in a recipe."""

    samples: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    truth_weight: float
    seed: int
    ema_decay: float | None = None

    @classmethod
    def of(cls, section: Any, samples: int | None = None) -> Lesson:
        """From a recipe's section; `samples` in the place of its own."""
        names = [n for n in cls.__dataclass_fields__ if hasattr(section, n)]
        chosen = {n: getattr(section, n) for n in names}
        return cls(**(chosen if samples is None else {**chosen, "samples": samples}))


class Teaching:
    """What all fits to one source share.

    Args:
        source: the teacher.
        pool: frames that it has labelled.
        validation: held frames with masks (the source's own masks where there are no others).
        folder: where unfinished fits keep their state.
        report: called with the fit's name after every epoch.
    """

    def __init__(
        self,
        source: Source,
        pool: LabelledPool,
        validation: ValidationData,
        folder: Path,
        report: ReportEpoch = lambda name, epoch: None,
    ) -> None:
        self.source, self.pool, self.validation, self.folder, self.report = source, pool, validation, folder, report
        self.classes = len(source.classes)

    def fit(
        self,
        module: nn.Module,
        name: str,
        lesson: Lesson,
        *,
        on_step: Callable[[int, int], None] = lambda step, steps: None,
        penalty: Callable[[], Tensor] | None = None,
    ) -> dict[str, Any]:
        """Fit a network in place; a killed fit of the same name and lesson goes on from its last epoch.

        Returns:
            The record of the fit: its lesson, best score, history.

        Raises:
            BadInput: the pool is smaller than a batch, or the state is of another fit.
        """
        if len(self.pool) < lesson.batch_size:
            raise BadInput(f"the pool has {len(self.pool)} frames, expected at least a batch of {lesson.batch_size}")
        epochs = max(1, round(lesson.samples / _EPOCH_SAMPLES))
        steps = max(1, round(lesson.samples / epochs / lesson.batch_size))
        fit = Fit(
            module,
            [{"params": [p for p in module.parameters() if p.requires_grad], "lr": lesson.learning_rate}],
            Schedule(epochs, steps, lesson.weight_decay, lesson.ema_decay, lesson.seed),
            batches=lambda seed: self.pool.batches(lesson.batch_size, seed),
            loss=self.loss(lesson.truth_weight),
            score=self.score,
            on_step=on_step,
            penalty=penalty,
        )
        shapes = [list(p.shape) for p in module.state_dict().values()]
        settings = [asdict(lesson), self.source.origin, len(self.pool), shapes, tool_versions("torch", "monai")]
        record = fit.run(self.folder / f"{name}.state.pt", settings, lambda epoch: self.report(name, epoch))
        return {"lesson": asdict(lesson), **record}

    def loss(self, truth_weight: float) -> Callable[[Any, Batch], Tensor]:
        """Dice and cross-entropy against the source's probabilities and, with this weight, the reference masks.

        A frame without a reference mask has the source's word alone.
        """
        compare = segmentation_loss(self.classes)
        weight = truth_weight if self.pool.has_truth else 0.0

        def loss(output: Any, batch: Batch) -> Tensor:
            _, taught, truth, known = batch
            logits = to_size(logits_of(output), taught.shape[2:])
            total = (1 - weight) * compare(logits, probabilities(taught))
            if weight and known.any():
                total = total + weight * compare(logits[known], truth[known])
            return total

        return loss

    def score(self, module: nn.Module) -> float:
        """Mean Dice (0..1) on the held frames."""
        return validate(module, self.validation, self.classes)


def probabilities(logits: Tensor) -> Tensor:
    """Of logits [N, L, h, w]: sigmoid for one, softmax over several."""
    return logits.sigmoid() if logits.shape[1] == 1 else torch.softmax(logits, 1)


def validation_data(source: Source, held: FrameFolder) -> ValidationData:
    """Held frames with their masks, or with the source's own where they have none."""
    reference = None if held.has_masks else source.run
    return ValidationData(held, source.preprocess, len(source.classes), reference)


