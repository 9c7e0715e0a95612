"""One way to train: AdamW with a cosine schedule, averaged weights, the best ones kept, resumable after every epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.errors import BadInput, ConversionError

Batch = tuple[Tensor, ...]
"""Normalised images [N, C, H, W] float32, then what the loss needs."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave: mean training loss and the score of the averaged weights (validation Dice, 0..1)."""

    number: int
    epochs: int
    loss: float
    val_dice: float
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a fit goes.

    Attributes:
        epochs: after each the weights are scored and the state is saved.
        steps: optimizer steps an epoch.
        weight_decay: AdamW's.
        ema_decay: of the averaged weights that are scored and kept, reached after a warm-up; None takes the weights
            of the last step as they are.
        seed: of the order of batches and of all else that is random.
    """

    epochs: int
    steps: int
    weight_decay: float
    ema_decay: float | None
    seed: int


class Fit:
    """The moving parts of one training run; `run` changes the model in place.

    Args:
        model: a network; its best weights are in it at the end.
        groups: optimizer parameter groups with their peak learning rates.
        schedule: see Schedule.
        batches: an epoch's batches for a seed, at least `schedule.steps` of them.
        loss: of the model's output and its batch.
        score: of a model in eval mode, higher is better.
        on_step: called with (step, steps) after every optimizer step.
        penalty: added to the loss.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        schedule: Schedule,
        *,
        batches: Callable[[int], Iterable[Batch]],
        loss: Callable[[Tensor, Batch], Tensor],
        score: Callable[[nn.Module], float],
        on_step: Callable[[int, int], None] = lambda step, steps: None,
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plan, self.batches, self.loss, self.score = schedule, batches, loss, score
        self.on_step, self.penalty = on_step, penalty
        decay = schedule.ema_decay
        self.average = None if decay is None else _averaged(self.model, decay)
        self.optimizer = torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)
        total = schedule.epochs * schedule.steps
        self.lr_schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _cosine(step, total))
        self.epoch = 0
        self.best_score, self.best_epoch = -1.0, 0
        self.best_state = copy.deepcopy(model.state_dict())
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    def run(self, state: Path, settings: Any, report: Callable[[Epoch], None] = lambda epoch: None) -> dict[str, Any]:
        """Train to the end, from the state of an interrupted run where there is one.

        Args:
            state: file that holds the state after every epoch; a finished run is not run again.
            settings: what makes two runs the same; plain values.
            report: called after every epoch.

        Returns:
            The record: best epoch, its score, seconds and the history.

        Raises:
            BadInput: the state is of another run, or damaged.
            ConversionError: the loss is not finite.
        """
        self._resume(state, settings)
        while self.epoch < self.plan.epochs:
            epoch = self._one_epoch()
            self._save(state, settings)
            report(epoch)
        self.model.load_state_dict(self.best_state)
        self.model.eval()
        return {
            "best_epoch": self.best_epoch,
            "val_dice": self.best_score,
            "seconds": round(self.seconds),
            "history": self.history,
        }

    def _one_epoch(self) -> Epoch:
        start = time.monotonic()
        self.model.train()
        # Seeded by epoch, so that a resumed run sees what an uninterrupted one would have seen.
        seed = self.plan.seed * 100_003 + self.epoch
        torch.manual_seed(seed)
        losses = [self._step(batch) for batch, _ in zip(self.batches(seed), range(self.plan.steps), strict=False)]
        mean_loss = sum(losses) / len(losses)
        if not math.isfinite(mean_loss):
            raise ConversionError(f"the loss of epoch {self.epoch + 1} is not finite: lower the learning rate")
        self.epoch += 1
        kept = self.average.module if self.average else self.model
        score = self.score(kept.eval())
        best = score > self.best_score or self.average is None
        if best:
            self.best_score, self.best_epoch = score, self.epoch
            self.best_state = copy.deepcopy(kept.state_dict())
        seconds = time.monotonic() - start
        self.seconds += seconds
        self.history.append({"loss": round(mean_loss, 5), "val_dice": round(score, 5)})
        return Epoch(self.epoch, self.plan.epochs, mean_loss, score, best, seconds)

    def _step(self, batch: Batch) -> float:
        output = self.model(batch[0].contiguous(memory_format=torch.channels_last))
        loss = self.loss(output, batch)
        if self.penalty is not None:
            loss = loss + self.penalty()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.lr_schedule.step()
        if self.average:
            self.average.update_parameters(self.model)
        self.on_step(self.lr_schedule.last_epoch, self.plan.epochs * self.plan.steps)
        return float(loss.item())

    def _save(self, path: Path, settings: Any) -> None:
        state = {
            "settings": settings,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": {k: v for k, v in self.lr_schedule.state_dict().items() if k != "lr_lambdas"},
            "best_state": self.best_state,
            "progress": [self.epoch, self.best_score, self.best_epoch, self.seconds],
            "history": self.history,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def _resume(self, path: Path, settings: Any) -> None:
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise BadInput(f"{path} is not a readable training state: remove it to start again ({error})") from error
        if state.get("settings") != settings:
            raise BadInput(
                f"{path} is the state of a run with other options, data or versions: remove it to start again, "
                f"or repeat that run's options to finish it"
            )
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        lambdas = [None] * len(self.optimizer.param_groups)
        self.lr_schedule.load_state_dict({**state["schedule"], "lr_lambdas": lambdas})
        self.best_state, self.history = state["best_state"], state["history"]
        self.epoch, self.best_score, self.best_epoch, self.seconds = state["progress"]


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        # A constant decay would still be half the random start after a short run on few frames.
        share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def _cosine(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
    return warm * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
