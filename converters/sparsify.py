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

from edgeseg.converters.masks import growth_of, shares
from edgeseg.converters.quiet import quiet
from edgeseg.converters.recipe import Sparsify
from edgeseg.converters.weights import first_line
from edgeseg.errors import ConversionError, UnsupportedModel

if TYPE_CHECKING:
    from edgeseg.converters.prune import FineTune


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
    names = sorted(shares(masked))
    report(f"sparsify: {len(names)} tensors, {options.mode} to {options.ratio:.1%} zeros")
    growth = growth_of(masked, names, options)
    fine_tune(masked, "sparsify", on_step=growth.on_step, penalty=growth.penalty)
    growth.finish()
    masked.eval()
    with quiet():
        if options.adaptation_frames and _has_batch_norm(masked):
            images = _first(batches(), options.adaptation_frames)
            nncf.batch_norm_adaptation(masked, nncf.Dataset(images), num_iterations=len(images))
        counted = shares(masked)
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
            found = shares(masked)
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
