"""Fine-tuning under int8 arithmetic: the network learns to live with the rounding that its artifacts will have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeseg.converters.calibrate import Range, mean_range
from edgeseg.converters.prune import FineTune
from edgeseg.errors import UnsupportedModel

_QUANTIZED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def quantization_aware(
    module: nn.Module, fine_tune: FineTune, images: Callable[[], Iterable[Tensor]], name: str = "quantize"
) -> None:
    """Fine-tune a network in place while its weights and the inputs of its layers are rounded as int8 rounds them.

    Weights are rounded per output channel, symmetrically; inputs per tensor, with the ranges of the one calibration,
    which are measured before and stay. Gradients pass the rounding unchanged (Jacob et al., CVPR 2018). The float
    weights that come out are then quantized as all others are, by each engine's own converter.

    Args:
        module: a trained network on normalised input; in eval mode at the end, its layers as they were.
        fine_tune: called once.
        images: normalised images [N, C, H, W] float32 for the ranges, one frame or more at a time.
        name: under which the fine-tuning keeps its state.

    Raises:
        UnsupportedModel: there is no convolution or linear layer in it.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _QUANTIZED)]
    if not layers:
        raise UnsupportedModel(f"{type(module).__name__} has no convolution or linear layer to quantize")
    ranges = _input_ranges(module, layers, images())
    with ExitStack() as stack:
        for layer in ranges:
            parametrize.register_parametrization(layer, "weight", _RoundedWeight(_channel_axis(layer)))
            stack.callback(parametrize.remove_parametrizations, layer, "weight", leave_parametrized=False)
            stack.callback(layer.register_forward_pre_hook(_rounded_input(ranges[layer])).remove)
        fine_tune(module, name)
    module.eval()


def _channel_axis(layer: nn.Module) -> int:
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


class _RoundedWeight(nn.Module):
    """A weight as int8 holds it: one scale per output channel, -127 to 127."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        others = [i for i in range(weight.ndim) if i != self.axis]
        scale = (weight.detach().abs().amax(others) / 127).clamp_min(1e-12)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, self.axis, -127, 127)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def _rounded_input(limits: Range) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A forward hook that rounds a layer's input to 256 levels over a range that contains 0."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = max((high - low) / 255, 1e-12)
    zero = round(-low / scale)

    def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (torch.fake_quantize_per_tensor_affine(inputs[0], scale, zero, 0, 255), *inputs[1:])

    return hook


def _input_ranges(
    module: nn.Module, layers: Iterable[nn.Module], images: Iterable[Tensor]
) -> dict[nn.Module, Range]:
    seen: dict[nn.Module, list[Range]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[layer].extend((float(x.min()), float(x.max())) for x in inputs[0])

    with ExitStack() as stack, torch.no_grad():
        for layer in seen:
            stack.callback(layer.register_forward_pre_hook(note).remove)
        module.eval()
        for batch in images:
            module(batch)
    return {layer: mean_range(np.array(pairs)) for layer, pairs in seen.items() if pairs}
