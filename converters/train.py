"""Transfer learning on a frames folder: MONAI's losses, metrics and augmentation; resumable; the best weights kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from torch import Tensor, nn

from edgeseg.converters.checkpoint import file_sha256, save_checkpoint
from edgeseg.converters.fit import Batch, Epoch, Fit, Schedule
from edgeseg.converters.models.build import architecture, build
from edgeseg.converters.models.encoder_weights import load_encoder_weights
from edgeseg.converters.models.unet import UNet
from edgeseg.converters.provenance import tool_versions
from edgeseg.converters.source import logits_of
from edgeseg.converters.training_data import TrainingData, ValidationData, split_for_training
from edgeseg.dataset import FrameFolder
from edgeseg.errors import BadInput
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
    if not isinstance(model, UNet):
        raise BadInput(f"{arch} has no pretrained encoder to start from: `edgeseg distill` makes one from a source")
    data = TrainingData(train_set, preprocess, len(classes), model.logit_stride, options.augmentation)
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
    decoder = [*model.decoder.parameters(), *model.head.parameters()]
    fit = Fit(
        model,
        [
            {"params": list(model.encoder.parameters()), "lr": options.encoder_lr},
            {"params": decoder, "lr": options.decoder_lr},
        ],
        Schedule(
            options.epochs, len(data) // options.batch_size, options.weight_decay, options.ema_decay, options.seed
        ),
        batches=lambda seed: data.batches(options.batch_size, seed),
        loss=truth_loss(len(classes)),
        score=lambda network: validate(network, validation, len(classes)),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    settings = msgspec.to_builtins([record, architecture(model), preprocess, classes])
    state = output.with_name(f".{output.name}.state.pt")
    record |= fit.run(state, settings, report)
    save_checkpoint(output, model, preprocess, classes, record)
    state.unlink(missing_ok=True)
    return record


def truth_loss(classes: int) -> Callable[[Tensor, Batch], Tensor]:
    """Dice and cross-entropy of logits [N, L, h, w] against soft targets, the second of a batch; MONAI's DiceCELoss."""
    loss = segmentation_loss(classes)
    return lambda logits, batch: loss(logits, batch[1])


def segmentation_loss(classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Dice and cross-entropy of logits against soft targets, both [N, L, h, w]; MONAI's DiceCELoss."""
    binary = classes == 2
    loss: Callable[[Tensor, Tensor], Tensor] = DiceCELoss(
        sigmoid=binary, softmax=not binary, smooth_nr=1.0, smooth_dr=1.0
    )
    return loss


def validate(model: nn.Module, data: ValidationData, classes: int) -> float:
    """Mean foreground Dice (0..1) at the frames' own size, by MONAI's DiceMetric."""
    metric = DiceMetric(include_background=False, num_classes=classes)
    model.eval()
    with torch.inference_mode():
        for image, mask, area in data.items:
            logits = logits_of(model(image.contiguous(memory_format=torch.channels_last)))
            predicted = to_mask(logits.numpy(), mask.shape, area=area)
            metric(torch.from_numpy(predicted)[None, None], torch.from_numpy(mask)[None, None])
    return float(metric.aggregate())
