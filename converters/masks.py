"""NNCF's masks on the weights of a network held as `module`: how zeros come about during fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.converters.recipe import Sparsify

# The share of zeros grows in this many "epochs" of NNCF's schedulers, all within this part of the fine-tuning; the
# rest of it repairs what the last zeros broke.
_EPOCHS = 20
_GROWING = 0.6
_MULTISTEP = {0: 0.25, 7: 0.5, 14: 0.75, _EPOCHS: 1.0}
_SHORT_BY = 0.001
# Learned masks start around here, where NNCF has them start, and a weight is gone below 0.
_MASK_START = 4.6
# A settled mask stands this far from 0, out of reach of the noise that NNCF adds in training.
_SETTLED = 10.0
_EPOCH_BUFFER = "sparsify_epoch"


def shares(masked: nn.Module) -> dict[str, float]:
    """The share of zeros in each masked weight, by its name in the module held."""
    import nncf

    tensors = nncf.pruning_statistic(masked).pruned_tensors
    return {t.tensor_name.removeprefix("module."): t.pruned_ratio for t in tensors}


def growth_of(masked: nn.Module, names: Sequence[str], options: Sparsify) -> Magnitude | Regularization:
    """How zeros grow in a network that NNCF has put masks on.

    Args:
        masked: from `nncf.prune`.
        names: of the masked weights, in the module held.
        options: the recipe's section.
    """
    kind = Regularization if options.mode == "regularization" else Magnitude
    return kind(masked, names, options)


def _epoch(step: int, steps: int) -> int:
    """From 0 to _EPOCHS, reached at _GROWING of all steps."""
    return min(_EPOCHS, int(_EPOCHS * step / (_GROWING * steps)))


def _weights(masked: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    parameters = dict(masked.named_parameters(remove_duplicate=False))
    return [parameters[f"module.{name}"] for name in names]


class Magnitude:
    """The smallest weights are masked, more of them at each epoch of NNCF's scheduler."""

    penalty: Callable[[], Tensor] | None = None

    def __init__(self, masked: nn.Module, names: Sequence[str], options: Sparsify) -> None:
        import nncf
        from nncf.torch.function_hook.pruning.magnitude import schedulers

        local = options.mode == "magnitude-local"
        mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL if local else nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL
        self._masked, self._ratio = masked, options.ratio
        self._weights = _weights(masked, names)
        self._scheduler: Any
        if options.schedule == "exponential":
            self._scheduler = schedulers.ExponentialMagnitudePruningScheduler(
                masked, mode=mode, initial_ratio=0.0, target_ratio=options.ratio, target_epoch=_EPOCHS
            )
        else:
            steps = {epoch: share * options.ratio for epoch, share in _MULTISTEP.items()}
            self._scheduler = schedulers.MultiStepMagnitudePruningScheduler(masked, mode=mode, steps=steps)

    def on_step(self, step: int, steps: int) -> None:
        """After an optimizer step."""
        # Only where an epoch begins: a run that goes on after a kill then has the masks that it would have had.
        if (epoch := _epoch(step, steps)) != _epoch(step - 1, steps):
            self._update(epoch)

    def finish(self) -> None:
        """Mask what is still missing, where the fine-tuning took no steps."""
        import nncf

        if nncf.pruning_statistic(self._masked).pruning_ratio < self._ratio - _SHORT_BY:
            self._update(_EPOCHS)

    def _update(self, epoch: int) -> None:
        # NNCF flattens weights by `view`, which those of a channels-last network refuse.
        kept = [w.data for w in self._weights]
        for weight in self._weights:
            weight.data = weight.data.contiguous()
        try:
            self._scheduler.step(epoch)
        finally:
            for weight, data in zip(self._weights, kept, strict=True):
                weight.data = data


class Regularization:
    """Every weight has a mask that is learned; the loss asks for a share of zeros that grows by NNCF's scheduler.

    Three things are added to NNCF, whose masks all start alike and stay noisy to the end. Each mask starts by the rank
    of its weight's magnitude, the optimizer's steps on masks are lengthened so that they arrive in a short fine-tuning,
    and when the share has grown the lowest masks, as many as asked, are settled and the weights tuned to that. On a
    tiny U-Net of Dice 0.99 (400 steps, one seed), half zeros cost 0.24 with the longer steps alone, 0.14 with settling
    too, nothing with all three.
    """

    def __init__(self, masked: nn.Module, names: Sequence[str], options: Sparsify) -> None:
        from nncf.torch.function_hook.pruning.rb.algo import get_pruned_modules
        from nncf.torch.function_hook.pruning.rb.losses import RBLoss
        from nncf.torch.function_hook.pruning.rb.schedulers import ExponentialRBPruningScheduler

        hooks = get_pruned_modules(masked)
        self._masks: list[Tensor] = [hooks[f"module.{name}"].mask for name in names]
        self._before: list[Tensor] = []
        self._masked, self._options = masked, options
        # In the network's state, so that a run that goes on after a kill knows it.
        masked.register_buffer(_EPOCH_BUFFER, torch.tensor(0))
        self._start(_weights(masked, names))
        self._loss = RBLoss(masked, target_ratio=0.0)
        self._scheduler = ExponentialRBPruningScheduler(
            self._loss, initial_ratio=0.0, target_ratio=options.ratio, target_epoch=_EPOCHS
        )

    def penalty(self) -> Tensor:
        """NNCF's loss for the share of zeros; nothing once the masks are settled."""
        self._before = [m.detach().clone() for m in self._masks]
        if self._settled:
            return torch.zeros(())
        self._scheduler.step(int(self._masked.get_buffer(_EPOCH_BUFFER)))
        loss: Tensor = self._loss()
        return loss

    @torch.no_grad()
    def on_step(self, step: int, steps: int) -> None:
        """After an optimizer step, itself after `penalty`."""
        # Twice the way from the start to 0, at the mean rate of a cosine schedule.
        longer = max(1.0, 2 * _MASK_START / (0.5 * self._options.learning_rate * steps))
        for mask, before in zip(self._masks, self._before, strict=True):
            mask.copy_(before if self._settled else before + longer * (mask - before))
        if not self._settled and _epoch(step, steps) == _EPOCHS:
            self._settle()
        self._masked.get_buffer(_EPOCH_BUFFER).fill_(_epoch(step, steps))

    def finish(self) -> None:
        """Settle the masks where the fine-tuning took no steps."""
        if not self._settled:
            self._settle()

    @property
    def _settled(self) -> bool:
        return int(self._masked.get_buffer(_EPOCH_BUFFER)) == _EPOCHS

    @torch.no_grad()
    def _start(self, weights: Sequence[Tensor]) -> None:
        sizes = torch.cat([(w.abs() / w.norm().clamp_min(1e-30)).flatten() for w in weights])
        ranks = sizes.argsort(stable=True).argsort() / len(sizes)
        self._set(_MASK_START * (0.5 + ranks))

    @torch.no_grad()
    def _settle(self) -> None:
        scores = torch.cat([m.flatten() for m in self._masks])
        settled = torch.full_like(scores, _SETTLED)
        settled[scores.argsort(stable=True)[: round(self._options.ratio * len(scores))]] = -_SETTLED
        self._set(settled)

    def _set(self, values: Tensor) -> None:
        pieces = torch.split(values, [m.numel() for m in self._masks])
        for mask, piece in zip(self._masks, pieces, strict=True):
            mask.copy_(piece.view(mask.shape))
