"""The source itself as a thing to measure: torch eager, and torch at its best on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.fx.experimental import optimization

from edgeseg.converters.source import Source
from edgeseg.parity import RunLogits
from edgeseg.types import Array


def torch_baselines(source: Source, threads: int | None) -> dict[str, RunLogits]:
    """Functions of raw pixels [1, C, H, W] float32 that return logits [1, L, h, w] float32.

    Args:
        source: the trained model.
        threads: of torch, for the whole process; None leaves torch's own number.

    Returns:
        "torch": eager, contiguous, as trained. "torch-channels-last": batch norms fused and channels last; left out
        where the module cannot be traced, or the fused one computes something else.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    runs: dict[str, RunLogits] = {"torch": _run(source.network, torch.contiguous_format)}
    fused = _fused(source.network)
    if fused is not None:
        candidate = _run(fused, torch.channels_last)
        example = source.example.numpy()
        if np.allclose(candidate(example), source.run(example), rtol=1e-3, atol=1e-3):
            runs["torch-channels-last"] = candidate
    return runs


def _fused(network: nn.Module) -> nn.Module | None:
    try:
        fused: nn.Module = optimization.fuse(network)
        return fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    except Exception:
        return None


def _run(network: Callable[[torch.Tensor], torch.Tensor], memory_format: torch.memory_format) -> RunLogits:
    def run(pixels: Array) -> Array:
        with torch.inference_mode():
            image = torch.from_numpy(pixels).contiguous(memory_format=memory_format)
            return network(image).contiguous().numpy()

    return run
