"""How much a network computes and holds: counted on the operators that really run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of all convolutions, transposed convolutions and matrix products for one frame.

    Element-wise operators, pooling and resizing are not counted, as is the custom.

    Args:
        module: any network, also one of torch.export; its modes (train or eval) are left as they were.
        example: [N, C, H, W] float32 as the module takes it; the count is for one of the N.
    """
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module(example)
    finally:
        for m in training:
            m.training = True
    return int(counter.get_total_flops()) // 2 // len(example)


def parameters(module: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(p.numel() for p in module.parameters())
