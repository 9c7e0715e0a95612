"""Unstructured pruning by NNCF: weights become zero, for a smaller download. No engine runs zeros any faster."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeseg.converters.quiet import quiet
from edgeseg.converters.recipe import Sparsify
from edgeseg.converters.weights import first_line
from edgeseg.errors import ConversionError, UnsupportedModel

if TYPE_CHECKING:
    from edgeseg.converters.prune import FineTune

# The share grows in this many "epochs" of NNCF's schedulers, all within this part of the fine-tuning; the rest of it
# repairs what the last zeros broke.
_EPOCHS = 20
_GROWING = 0.6
_MULTISTEP = {0: 0.25, 7: 0.5, 14: 0.75, _EPOCHS: 1.0}
_SHORT_BY = 0.001
# NNCF's learned masks start here, and a weight is gone below 0. They must be able to travel this far twice.
_MASK_START = 4.6
# A settled mask stands this far from 0, out of reach of the noise that NNCF adds in training.
_SETTLED = 10.0
_EPOCH_BUFFER = "sparsify_epoch"


@dataclass(frozen=True, slots=True)
class SparsifyReport:
    """What became zero, counted in the result itself.

    Attributes:
        mode: of the recipe.
        asked, reached: share of zeros among the weights that can be pruned: of convolutions and linear layers.
        zeros, weights: their numbers.
        parameters: of the whole network, with biases and normalisation.
        layers: zeros and weights of each tensor.
        untouched: weight tensors that NNCF does not reach, as those computed from others.
    """

    mode: str
    asked: float
    reached: float
    zeros: int
    weights: int
    parameters: int
    layers: dict[str, tuple[int, int]]
    untouched: tuple[str, ...]


def sparsify(
    module: nn.Module,
    example: Tensor,
    options: Sparsify,
    *,
    fine_tune: FineTune,
    batches: Callable[[], Iterable[Tensor]],
    report: Callable[[str], None] = lambda line: None,
) -> tuple[nn.Module, SparsifyReport]:
    """Make weights zero while fine-tuning, then adapt the batch-norm statistics.

    Args:
        module: a trained network on normalised input, without edgeseg's own normalisation in front; stays as it is.
        example: [1, C, H, W] float32 as the module takes it.
        options: the recipe's section.
        fine_tune: called once, with the name `sparsify`.
        batches: normalised images [N, C, H, W] float32, for the batch-norm statistics.
        report: gets a line at each stage.

    Returns:
        A plain module of the same class with the same state-dict keys, in eval mode, and what became zero.

    Raises:
        UnsupportedModel: NNCF fails on the network, or finds no weights in it.
        ConversionError: the result has other zeros than NNCF counts.
    """
    with quiet():
        import nncf

        nncf.set_log_level(logging.ERROR)
    masked = _masked(module, example, options)
    names = sorted(_shares(masked))
    report(f"sparsify: {len(names)} tensors, {options.mode} to {options.ratio:.1%} zeros")
    growth = _growth(masked, names, options)
    fine_tune(masked, "sparsify", on_step=growth.on_step, penalty=growth.penalty)
    growth.finish()
    masked.eval()
    with quiet():
        if options.adaptation_frames and _has_batch_norm(masked):
            images = _first(batches(), options.adaptation_frames)
            nncf.batch_norm_adaptation(masked, nncf.Dataset(images), num_iterations=len(images))
        counted = _shares(masked)
        stripped = nncf.strip(masked, do_copy=False, strip_format=nncf.StripFormat.IN_PLACE)
    plain = _plain(module, stripped.state_dict())
    result = _report(plain, names, options)
    for name, (zeros, weights) in result.layers.items():
        if zeros < round(counted[name] * weights):
            raise ConversionError(f"{name} has {zeros} zeros of {weights}, NNCF counts {counted[name]:.1%}")
    report(f"sparsify: {result.reached:.1%} of {result.weights} weights are zero, {result.asked:.1%} were asked for")
    return plain, result


class _Held(nn.Module):
    """NNCF puts a child of its own into the module that it gets, and a Sequential would call it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        """As the module does."""
        return self.module(x)


def _shares(masked: nn.Module) -> dict[str, float]:
    """The share of zeros in each weight, by the name that it has in the module held."""
    import nncf

    tensors = nncf.pruning_statistic(masked).pruned_tensors
    return {t.tensor_name.removeprefix("module."): t.pruned_ratio for t in tensors}


def _masked(module: nn.Module, example: Tensor, options: Sparsify) -> nn.Module:
    """A copy, held, with NNCF's masks on its weights."""
    import nncf

    modes = {
        "magnitude-local": nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL,
        "magnitude-global": nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL,
        "regularization": nncf.PruneMode.UNSTRUCTURED_REGULARIZATION_BASED,
    }
    entered: list[str] = []
    try:
        with quiet():
            held = _Held(copy.deepcopy(module)).eval()
            with _watched(held.module, entered):
                ratio = None if options.mode == "regularization" else 0.0
                masked: nn.Module = nncf.prune(held, mode=modes[options.mode], ratio=ratio, examples_inputs=example)
            found = _shares(masked)
    except Exception as error:
        where = f" in layer {entered[-1]}" if entered and entered[-1] else ""
        raise UnsupportedModel(
            f"NNCF cannot prune this {type(module).__name__}{where}: {first_line(error)}: leave out [sparsify]"
        ) from error
    parameters = dict(module.named_parameters(remove_duplicate=False))
    constant = sorted(found.keys() - parameters.keys())
    if constant or not found:
        what = f"{constant[0]} is a constant, no parameter" if constant else "it has no convolutions or linear layers"
        raise UnsupportedModel(f"NNCF cannot prune this {type(module).__name__}: {what}: leave out [sparsify]")
    _sort_hooks(masked)
    return masked


@contextlib.contextmanager
def _watched(module: nn.Module, entered: list[str]) -> Iterator[None]:
    """Keep the path of the layers that are running in `entered`; it is empty again when all went well."""
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise TypeError(f"{name or 'it'} is TorchScript, whose graph is fixed")
        handles += [
            layer.register_forward_pre_hook(lambda layer, inputs, name=name: entered.append(name)),
            layer.register_forward_hook(lambda layer, inputs, output: entered.pop() and None),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sort_hooks(masked: nn.Module) -> None:
    """Order the masks by name: NNCF leaves them in the order of a set, and optimizer states go by position."""
    from nncf.torch.function_hook.wrapper import get_hook_storage

    hooks = get_hook_storage(masked).post_hooks
    ordered = sorted(hooks.items())
    hooks.clear()
    hooks.update(dict(ordered))


def _growth(masked: nn.Module, names: list[str], options: Sparsify) -> _Magnitude | _Regularized:
    return _Regularized(masked, options) if options.mode == "regularization" else _Magnitude(masked, names, options)


def _epoch(step: int, steps: int) -> int:
    """From 0 to _EPOCHS, reached at _GROWING of all steps."""
    return min(_EPOCHS, int(_EPOCHS * step / (_GROWING * steps)))


class _Magnitude:
    """The smallest weights are masked, more of them at each epoch of NNCF's scheduler."""

    penalty: Callable[[], Tensor] | None = None

    def __init__(self, masked: nn.Module, names: list[str], options: Sparsify) -> None:
        import nncf
        from nncf.torch.function_hook.pruning.magnitude import schedulers

        local = options.mode == "magnitude-local"
        mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL if local else nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL
        parameters = dict(masked.named_parameters(remove_duplicate=False))
        self._masked, self._ratio = masked, options.ratio
        self._weights = [parameters[f"module.{name}"] for name in names]
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


class _Regularized:
    """Every weight has a mask that is learned; the loss asks for a share of zeros that grows by NNCF's scheduler.

    NNCF's masks are noisy as long as they learn, and most end near 0: which weights are in changes at every step, and
    the network that is left fits none of the networks that were trained (measured: Dice 0.80 instead of 0.99). Here
    the lowest masks, as many as asked, are settled for good when the share has grown, and the weights are tuned to it.
    """

    def __init__(self, masked: nn.Module, options: Sparsify) -> None:
        from nncf.torch.function_hook.pruning.rb.losses import RBLoss
        from nncf.torch.function_hook.pruning.rb.modules import RBPruningMask
        from nncf.torch.function_hook.pruning.rb.schedulers import ExponentialRBPruningScheduler

        # In the network's state, so that a run that goes on after a kill knows it.
        masked.register_buffer(_EPOCH_BUFFER, torch.tensor(0))
        self._masked, self._options = masked, options
        self._masks = [m.mask for m in masked.modules() if isinstance(m, RBPruningMask)]
        self._before: list[Tensor] = []
        self._loss = RBLoss(masked, target_ratio=0.0)
        self._scheduler = ExponentialRBPruningScheduler(
            self._loss, initial_ratio=0.0, target_ratio=options.ratio, target_epoch=_EPOCHS
        )

    def penalty(self) -> Tensor:
        """NNCF's loss for the share of zeros; nothing once the masks are settled."""
        self._before = [m.detach().clone() for m in self._masks]
        epoch = int(self._masked.get_buffer(_EPOCH_BUFFER))
        if epoch == _EPOCHS:
            return torch.zeros(())
        self._scheduler.step(epoch)
        loss: Tensor = self._loss()
        return loss

    def on_step(self, step: int, steps: int) -> None:
        """After an optimizer step."""
        epoch = self._masked.get_buffer(_EPOCH_BUFFER)
        settled = int(epoch) == _EPOCHS
        # An optimizer at the rate of fine-tuning would not bring a mask from its start to 0 in time: lengthen its step.
        longer = max(1.0, 2 * _MASK_START / (0.5 * self._options.learning_rate * steps))
        with torch.no_grad():
            for mask, before in zip(self._masks, self._before, strict=True):
                mask.copy_(before if settled else before + longer * (mask - before))
            epoch.fill_(_epoch(step, steps))
            if not settled and int(epoch) == _EPOCHS:
                self._settle()

    def _settle(self) -> None:
        scores = torch.cat([m.flatten() for m in self._masks])
        out = torch.zeros_like(scores, dtype=torch.bool)
        out[scores.argsort(stable=True)[: round(self._options.ratio * len(scores))]] = True
        for mask, gone in zip(self._masks, out.split([m.numel() for m in self._masks]), strict=True):
            mask.copy_(torch.where(gone.view(mask.shape), -_SETTLED, _SETTLED))

    def finish(self) -> None:
        """The share is what was learned: none where the fine-tuning took no steps."""


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def _first(batches: Iterable[Tensor], frames: int) -> list[Tensor]:
    """Whole batches with at least this many frames, or all there are."""
    taken: list[Tensor] = []
    for batch in batches:
        taken.append(batch)
        if sum(map(len, taken)) >= frames:
            break
    return taken


def _plain(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the module as it was, with these weights: `strip` leaves NNCF's wrapper on the other one."""
    plain = copy.deepcopy(module).eval()
    # A weight times a mask of 0 can be -0.0, whose sign would be noise to the compression.
    weights = {k: state[f"module.{k}"] for k in plain.state_dict()}
    plain.load_state_dict({k: torch.where(w == 0, 0, w) for k, w in weights.items()})
    return plain


def _report(plain: nn.Module, names: list[str], options: Sparsify) -> SparsifyReport:
    parameters = dict(plain.named_parameters(remove_duplicate=False))
    layers = {n: (int((parameters[n] == 0).sum()), parameters[n].numel()) for n in names}
    zeros, weights = (sum(column) for column in zip(*layers.values(), strict=True))
    pruned = {id(parameters[n]) for n in names}
    untouched = tuple(n for n, p in plain.named_parameters() if p.ndim > 1 and id(p) not in pruned)
    total = sum(p.numel() for p in plain.parameters())
    return SparsifyReport(options.mode, options.ratio, zeros / weights, zeros, weights, total, layers, untouched)
