"""Transfer learning on a frames folder: MONAI's losses, metrics and augmentation; resumable; the best weights kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.converters.checkpoint import file_sha256, save_checkpoint
from edgeseg.converters.models.encoder_weights import load_encoder_weights
from edgeseg.converters.models.unet import UNet, architecture, build
from edgeseg.converters.provenance import tool_versions
from edgeseg.converters.training_data import TrainingData, ValidationData, split_for_training
from edgeseg.dataset import FrameFolder
from edgeseg.errors import BadInput, ConversionError
from edgeseg.preprocess import to_mask
from edgeseg.types import Preprocess


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a training run can vary in; all of it goes into the training record.

    Attributes:
        epochs: passes over the training frames.
        batch_size: frames a step.
        encoder_lr, decoder_lr: peak learning rates (AdamW, cosine with 10 % warm-up).
        weight_decay: AdamW's.
        ema_decay: of the averaged weights that are validated and kept, reached after a warm-up.
        augmentation: "standard", or "strong" for longer runs.
        seed: of initialisation, order and augmentation.
    """

    epochs: int = 60
    batch_size: int = 8
    encoder_lr: float = 5e-4
    decoder_lr: float = 2e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.99
    augmentation: str = "standard"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave: mean training loss and validation Dice (0..1) at the frames' own size."""

    number: int
    loss: float
    val_dice: float
    best: bool
    seconds: float


def train(
    folder: FrameFolder,
    output: Path,
    *,
    arch: str,
    arch_options: dict[str, Any],
    preprocess: Preprocess,
    classes: tuple[str, ...],
    encoder_weights: Path | None = None,
    options: TrainOptions | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> dict[str, Any]:
    """Train a reference segmenter and write its checkpoint.

    The state of an unfinished run lies beside `output` as `.NAME.state.pt`; the same call goes on from it.

    Args:
        folder: frames with masks; splits train and val from its index, else by exam.
        output: the checkpoint, .safetensors.
        arch: name of a reference segmenter.
        arch_options: fields of UNetOptions beside in_channels and classes.
        preprocess: input size (divisible by 32), channels, normalisation.
        classes: names, index 0 is the background.
        encoder_weights: ImageNet weights; None starts from random ones.
        options: see TrainOptions.
        report: called after every epoch.

    Returns:
        The training record, as stored in the checkpoint.

    Raises:
        BadInput: for a size not divisible by 32, missing masks, or a state file of another run.
        ConversionError: for unusable encoder weights, or a loss that is not finite.
    """
    options = options or TrainOptions()
    if preprocess.height % 32 or preprocess.width % 32:
        raise BadInput(f"size is {preprocess.height}x{preprocess.width}, expected multiples of 32")
    train_set, val_set = split_for_training(folder)
    torch.manual_seed(options.seed)
    model = build(arch, in_channels=preprocess.channels, classes=len(classes), **arch_options)
    stride = 1 if model.options.full_resolution else model.logit_stride
    data = TrainingData(train_set, preprocess, len(classes), stride, options.augmentation)
    if len(data) < options.batch_size:
        raise BadInput(
            f"{folder.path} has {len(data)} training frames, expected at least one batch of {options.batch_size}"
        )
    validation = ValidationData(val_set, preprocess, len(classes))
    if encoder_weights is not None:
        load_encoder_weights(model.encoder, encoder_weights, data.calibration())
    record: dict[str, Any] = {
        "options": asdict(options),
        "data": {
            "folder": folder.path.name,
            "sha256": {"train": train_set.sha256(), "val": val_set.sha256()},
            "frames": {"train": len(train_set), "val": len(val_set)},
        },
        "encoder_weights": None
        if encoder_weights is None
        else {"file": encoder_weights.name, "sha256": file_sha256(encoder_weights)},
        "tools": tool_versions("torch", "monai"),
    }
    run = _Run(model, data, validation, options, len(classes))
    output.parent.mkdir(parents=True, exist_ok=True)
    state_path = output.with_name(f".{output.name}.state.pt")
    settings = msgspec.to_builtins([record, architecture(model), preprocess, classes])
    run.resume(state_path, settings)
    while run.epoch < options.epochs:
        epoch = run.one_epoch()
        run.save(state_path, settings)
        report(epoch)
    record |= {
        "best_epoch": run.best_epoch,
        "val_dice": run.best_dice,
        "seconds": round(run.seconds),
        "history": run.history,
    }
    model.load_state_dict(run.best_state)
    save_checkpoint(output, model, preprocess, classes, record)
    state_path.unlink(missing_ok=True)
    return record


class _Run:
    """The moving parts of one training run."""

    def __init__(
        self, model: UNet, data: TrainingData, validation: ValidationData, options: TrainOptions, classes: int
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.validation, self.options, self.classes = data, validation, options, classes
        self.average = AveragedModel(self.model, multi_avg_fn=_moving_average(options.ema_decay), use_buffers=True)
        binary = classes == 2
        self.loss = DiceCELoss(sigmoid=binary, softmax=not binary, smooth_nr=1.0, smooth_dr=1.0)
        decoder = [*model.decoder.parameters(), *model.head.parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(model.encoder.parameters()), "lr": options.encoder_lr},
                {"params": decoder, "lr": options.decoder_lr},
            ],
            weight_decay=options.weight_decay,
        )
        steps = options.epochs * (len(data) // options.batch_size)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _cosine(step, steps))
        self.epoch = 0
        self.best_dice, self.best_epoch = -1.0, 0
        self.best_state = copy.deepcopy(model.state_dict())
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    def one_epoch(self) -> Epoch:
        start = time.monotonic()
        self.model.train()
        losses = []
        # Seeded by epoch, so that a resumed run sees what an uninterrupted one would have seen.
        seed = self.options.seed * 100_003 + self.epoch
        torch.manual_seed(seed)
        for images, targets in self.data.batches(self.options.batch_size, seed):
            loss = self.loss(self.model(images.contiguous(memory_format=torch.channels_last)), targets)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self.schedule.step()
            self.average.update_parameters(self.model)
            losses.append(loss.item())
        mean_loss = sum(losses) / len(losses)
        if not math.isfinite(mean_loss):
            raise ConversionError(f"the loss of epoch {self.epoch + 1} is not finite: lower the learning rate")
        self.epoch += 1
        dice = validate(self.average.module, self.validation, self.classes)
        best = dice > self.best_dice
        if best:
            self.best_dice, self.best_epoch = dice, self.epoch
            self.best_state = copy.deepcopy(self.average.module.state_dict())
        seconds = time.monotonic() - start
        self.seconds += seconds
        self.history.append({"loss": round(mean_loss, 5), "val_dice": round(dice, 5)})
        return Epoch(self.epoch, mean_loss, dice, best, seconds)

    def save(self, path: Path, settings: list[Any]) -> None:
        state = {
            "settings": settings,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
            "best_state": self.best_state,
            "progress": [self.epoch, self.best_dice, self.best_epoch, self.seconds],
            "history": self.history,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path, settings: list[Any]) -> None:
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
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None, None]})
        self.best_state, self.history = state["best_state"], state["history"]
        self.epoch, self.best_dice, self.best_epoch, self.seconds = state["progress"]


def validate(model: nn.Module, data: ValidationData, classes: int) -> float:
    """Mean foreground Dice (0..1) at the frames' own size, by MONAI's DiceMetric."""
    metric = DiceMetric(include_background=False, num_classes=classes)
    model.eval()
    with torch.inference_mode():
        for image, mask in data.pairs:
            logits: Tensor = model(image.contiguous(memory_format=torch.channels_last))
            predicted = to_mask(logits.numpy(), mask.shape)
            metric(torch.from_numpy(predicted)[None, None], torch.from_numpy(mask)[None, None])
    return float(metric.aggregate())


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        # A constant decay would still be half the random start after a short run on few frames.
        share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)

    return update


def _cosine(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
    return warm * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
