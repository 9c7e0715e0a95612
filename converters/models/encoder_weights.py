"""Load ImageNet weights into a reference encoder: float or int8, with batch norm or with it folded into the bias."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.converters.weights import read_tensors
from edgeseg.errors import ConversionError

_PREFIX = re.compile(r"^(module\.|model\.|encoder\.|backbone\.)+")


def load_encoder_weights(encoder: nn.Module, path: Path | str, calibration: Tensor) -> int:
    """Load pretrained weights by key.

    Keys are the module names of torchvision (`features.1.conv.0.0.weight`) or timm (`blocks.0.0.conv_dw.weight`);
    a common prefix is dropped, a classifier ignored. A convolution may be stored as `weight`, or as `weight_int8`
    [O, I, h, w] with `weight_scale` [O]. A `bias` on a convolution is a folded batch norm, which cannot be trained: it
    is unfolded again with the statistics of `calibration`, which leaves the function as it is.

    Args:
        encoder: a reference encoder with 1 or 3 input channels; for 1, the first kernel's colours are summed.
        path: .safetensors, .npz or .pth (read with weights_only).
        calibration: [N, C, H, W] float32, normalised frames for the unfolding.

    Returns:
        The number of convolutions loaded.

    Raises:
        ConversionError: for an unreadable file, a wrong shape, or a convolution of the encoder without weights.
    """
    tensors = {_PREFIX.sub("", key): value for key, value in read_tensors(path).items()}
    folded: list[nn.BatchNorm2d] = []
    loaded = 0
    for name, conv, norm_name, norm in convolutions(encoder):
        weight = _weight(tensors, name)
        if weight is None:
            raise ConversionError(f"{path} has no weights for {name}, expected torchvision's or timm's key names")
        if weight.shape[1] == 3 and conv.weight.shape[1] == 1:
            weight = weight.sum(1, keepdim=True)
        if weight.shape != conv.weight.shape:
            raise ConversionError(
                f"{path}: {name} has shape {tuple(weight.shape)}, the encoder expects {tuple(conv.weight.shape)}"
            )
        with torch.no_grad():
            conv.weight.copy_(weight)
        try:
            if (bias := tensors.get(f"{name}.bias")) is not None:
                _set_folded(norm, bias)
                folded.append(norm)
            else:
                _copy_norm(norm, tensors, norm_name, path)
        except RuntimeError as error:
            raise ConversionError(f"{path}: the batch norm of {name} has another shape: {error}") from error
        loaded += 1
    if folded:
        _unfold(encoder, folded, calibration)
    return loaded


def convolutions(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d, str, nn.BatchNorm2d]]:
    """Every convolution with the batch norm that follows it, each after its name, in the order of definition."""
    named = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for (name, conv), (norm_name, norm) in pairwise(named):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            yield name, conv, norm_name, norm


def _weight(tensors: dict[str, Tensor], name: str) -> Tensor | None:
    if (weight := tensors.get(f"{name}.weight")) is not None:
        return weight.float()
    quantized, scale = tensors.get(f"{name}.weight_int8"), tensors.get(f"{name}.weight_scale")
    if quantized is not None and scale is not None:
        return quantized.float() * scale.float().view(-1, 1, 1, 1)
    return None


def _copy_norm(norm: nn.BatchNorm2d, tensors: dict[str, Tensor], name: str, path: Path | str) -> None:
    wanted = {k: tensors.get(f"{name}.{k}") for k in ("weight", "bias", "running_mean", "running_var")}
    if missing := [k for k, v in wanted.items() if v is None]:
        raise ConversionError(f"{path} has no {name}.{missing[0]}: neither a batch norm nor a folded bias")
    norm.load_state_dict(wanted, strict=False)


def _set_folded(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    with torch.no_grad():
        norm.weight.fill_(1)
        norm.bias.copy_(bias.float())
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]


def _unfold(encoder: nn.Module, norms: list[nn.BatchNorm2d], calibration: Tensor) -> None:
    """Give identity batch norms real statistics: y = x + b becomes w (x - m) / sqrt(v + eps) + b + m."""

    def restore(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        variance, mean = torch.var_mean(args[0], (0, 2, 3))
        variance = variance.clamp_min(1e-4)
        module.running_mean.copy_(mean)  # type: ignore[union-attr]
        module.running_var.copy_(variance)  # type: ignore[union-attr]
        module.weight.copy_((variance + module.eps).sqrt())
        module.bias.add_(mean)

    hooks = [norm.register_forward_hook(restore) for norm in norms]
    training = encoder.training
    try:
        with torch.no_grad():
            encoder.eval()(calibration)
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
