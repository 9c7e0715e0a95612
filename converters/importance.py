"""How much each channel matters to the loss, by torch-pruning's estimators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.pruner import importance as estimators

from edgeseg.converters.branches import Branches
from edgeseg.converters.source import logits_of
from edgeseg.errors import BadInput, ConversionError

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Normalised images [N, C, H, W] float32 with their targets, the same ones at every call."""
Loss = Callable[[Tensor, Tensor], Tensor]


def taylor(branches: Branches, batches: Batches, loss: Loss) -> dict[str, Tensor]:
    """First-order Taylor expansion of the loss (Molchanov et al., CVPR 2019), in all layers a channel passes through.

    The estimate is made for every batch and averaged: gradients of a trained network cancel over many batches.

    Returns:
        By branch [channels] float32; figures of different branches are comparable.

    Raises:
        BadInput: there is no batch.
        ConversionError: the loss or its gradient is not finite.
    """
    estimator = estimators.GroupTaylorImportance(group_reduction="sum", normalizer=None)
    module = branches.module
    frozen = [p for p in module.parameters() if p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    totals: dict[str, Tensor] = {}
    count = 0
    try:
        for images, targets in batches():
            count += 1
            _backward(module, images, targets, loss)
            for name, value in _estimates(branches, estimator).items():
                totals[name] = totals[name] + value if name in totals else value
    finally:
        module.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not count:
        raise BadInput('importance = "taylor" needs labelled frames and there are none: give masks, or use "magnitude"')
    if not all(torch.isfinite(t).all() for t in totals.values()):
        raise ConversionError("the gradient of the loss is not finite, so that no channel can be ranked by it")
    return {name: total / count for name, total in totals.items()}


def magnitude(branches: Branches) -> dict[str, Tensor]:
    """Sum of squared weights in all layers a channel passes through, over its mean in the branch.

    Returns:
        By branch [channels] float32.
    """
    estimator = estimators.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    return {name: value / value.mean().clamp_min(1e-12) for name, value in _estimates(branches, estimator).items()}


def _backward(module: nn.Module, images: Tensor, targets: Tensor, loss: Loss) -> None:
    module.zero_grad(set_to_none=True)
    with torch.enable_grad():
        loss(logits_of(module(images)), targets).backward()  # type: ignore[no-untyped-call]
    for parameter in module.parameters():
        if parameter.grad is None:
            # A branch that the loss does not see, as an auxiliary output.
            parameter.grad = torch.zeros_like(parameter)


def _estimates(branches: Branches, estimator: Any) -> dict[str, Tensor]:
    groups: dict[int, Tensor] = {}
    result = {}
    for name, branch in branches.items():
        key = id(branch.group)
        if key not in groups:
            groups[key] = estimator(_sorted(branch.group))
        result[name] = groups[key][list(branch.channels)].clone()
    return result


def _sorted(group: Any) -> Any:
    # The estimators sort the channels of a layer, but not the channels of the root that these belong to.
    for item in group:
        pairs = sorted(zip(item.idxs, item.root_idxs, strict=True))
        item.idxs[:] = [index for index, _ in pairs]
        item.root_idxs = [root for _, root in pairs]
    return group
