"""Which channels can leave a network, and taking them out, on the dependency graph of torch-pruning.

torch-pruning takes everything that a depthwise convolution touches as one group: behind the concatenation of a U-Net
that is the decoder's map and the skip connection together, and rounding their sum leaves branches of 1 or 13 channels.
Here such a group is split into its branches: channels that pass through exactly the same layers.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.pruner import function

from edgeseg.converters.weights import first_line
from edgeseg.errors import UnsupportedModel

Cuts = Mapping[str, Sequence[int]]
"""By branch: positions (0 is its first channel) of the channels that leave."""

_TOLERANCE = 1e-3  # share of the output's range by which float rounding may move it


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Channels that can leave one by one, each from all the layers it passes through.

    Attributes:
        name: of the first layer that makes them.
        layers: names of all layers whose outputs they are.
        channels: their indices among the outputs of the group's root.
        group: torch-pruning's group of all channels of the root.
        whole: why no channel can leave; empty where they can.
    """

    name: str
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    group: Any
    whole: str = ""

    def __len__(self) -> int:
        return len(self.channels)


class Branches(Mapping[str, Branch]):
    """All branches of a module as it is now, by name; after `remove` they are spent: make new ones.

    Args:
        module: a network; set to eval mode.
        example: [1, C, H, W] float32 as the module takes it.

    Raises:
        UnsupportedModel: the module has no layers, or cannot be traced.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        if not any(isinstance(m, nn.modules.conv._ConvNd | nn.Linear) for m in module.modules()):
            raise UnsupportedModel(
                f"{type(module).__name__} has no convolution or linear layer to prune (.pt2 and .onnx hold operators, "
                "not layers): give the checkpoint or the factory that it was exported from"
            )
        self.module, self.example = module.eval(), _noise_like(example)
        self.names = {m: name for name, m in module.named_modules()}
        self.graph = self._trace()
        order = {name: index for index, name in enumerate(self.names.values())}
        found: dict[str, Branch] = {}
        for group in self.graph.get_all_groups():
            for branch in _split(group, self.names, order):
                number = sum(name.partition("#")[0] == branch.name for name in found)
                name = f"{branch.name}#{number + 1}" if number else branch.name
                found[name] = replace(branch, name=name, whole=branch.whole or self._tie(branch))
        self._branches = dict(sorted(found.items(), key=lambda item: order[item[0].partition("#")[0]]))

    def __getitem__(self, name: str) -> Branch:
        return self._branches[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._branches)

    def __len__(self) -> int:
        return len(self._branches)

    @contextlib.contextmanager
    def silenced(self, cuts: Cuts) -> Iterator[None]:
        """Let nothing hear these channels for a while: the same function as without them."""
        saved: list[tuple[Tensor, Tensor]] = []
        try:
            with torch.no_grad():
                for group in self._groups(cuts):
                    for weight, axis, index in _consumers(group):
                        saved.append((weight, weight.clone()))
                        weight.index_fill_(axis, index, 0)
            yield
        finally:
            with torch.no_grad():
                for weight, value in reversed(saved):
                    weight.copy_(value)

    def remove(self, cuts: Cuts) -> None:
        """Take channels out of the module for good, and prove that only they are gone.

        Raises:
            UnsupportedModel: the graph was not what torch-pruning took it for; the module is spoilt then.
        """
        with self.silenced(cuts):
            expected = self._run()
        frozen = [name for name, p in self.module.named_parameters() if not p.requires_grad]  # pruning replaces them
        try:
            with torch.no_grad():
                for root, channels in self._roots(cuts).items():
                    self._group(root, channels).prune()
            found = self._run()
        except Exception as error:
            raise UnsupportedModel(f"without channels of {', '.join(cuts)} it fails: {first_line(error)}") from error
        for name in frozen:
            self.module.get_parameter(name).requires_grad_(False)
        if not _close(found, expected):
            raise UnsupportedModel(f"without channels of {', '.join(cuts)} the others change as well")

    def _trace(self) -> Any:
        frozen = [p for p in self.module.parameters() if p.is_floating_point() and not p.requires_grad]
        name = type(self.module).__name__
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch_pruning.DependencyGraph().build_dependency(
                    self.module,
                    self.example,
                    forward_fn=lambda module, x: module(x),
                    # One operator more, so that a layer that makes an output is never the graph's end itself.
                    output_transform=lambda output: [t * 1 for t in _tensors(output)],
                )
        except Exception as error:
            raise UnsupportedModel(f"{name} cannot be traced for pruning: {first_line(error)}") from error
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)

    def _tie(self, branch: Branch) -> str:
        """What speaks against taking one channel alone; empty where nothing does."""
        alone = self._group(branch.group[0].dep.target.module, [branch.channels[0]])
        return "has channels that can only leave with others of the same layer" if len(alone[0].idxs) > 1 else ""

    def _roots(self, cuts: Cuts) -> dict[nn.Module, list[int]]:
        roots: dict[nn.Module, list[int]] = {}
        for name, positions in cuts.items():
            if positions:
                branch = self[name]
                root = branch.group[0].dep.target.module
                roots.setdefault(root, []).extend(branch.channels[i] for i in positions)
        return roots

    def _groups(self, cuts: Cuts) -> list[Any]:
        return [self._group(root, channels) for root, channels in self._roots(cuts).items()]

    def _group(self, root: nn.Module, channels: list[int]) -> Any:
        pruner = self.graph.get_pruner_of_module(root)
        return self.graph.get_pruning_group(root, pruner.prune_out_channels, sorted(channels))

    def _run(self) -> list[Tensor]:
        with torch.no_grad():
            return _tensors(self.module(self.example))


def whole_branches(module: nn.Module, example: Tensor) -> dict[str, str]:
    """Branches that must stay as they are, with the reason: found by trying, on copies.

    Raises:
        UnsupportedModel: nothing can be pruned; says why, naming the layers.
    """
    branches = Branches(module, example)
    whole = {name: branch.whole for name, branch in branches.items() if branch.whole}
    rest = [name for name in branches if name not in whole]
    if rest and _trial(module, example, rest):
        # Something does not work: try each alone.
        whole |= {name: reason for name in rest if (reason := _trial(module, example, [name]))}
    if len(whole) == len(branches):
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(whole.items())[:5])
        raise UnsupportedModel(f"no layer of {type(module).__name__} can be pruned: {reasons}")
    return whole


def _trial(module: nn.Module, example: Tensor, names: Sequence[str]) -> str:
    """Why every fourth channel of these branches cannot leave together; empty where it can."""
    branches = Branches(copy.deepcopy(module), example)
    try:
        branches.remove({name: range(0, len(branches[name]), 4) for name in names})
    except UnsupportedModel as error:
        return f"cannot be pruned: {error}"
    return ""


def _split(group: Any, names: Mapping[nn.Module, str], order: Mapping[str, int]) -> Iterator[Branch]:
    """The branches of a group of torch-pruning."""
    passed: dict[int, set[int]] = {}
    for position, item in enumerate(group):
        for channel in item.root_idxs:
            passed.setdefault(channel, set()).add(position)
    classes: dict[frozenset[int], list[int]] = {}
    for channel in group[0].idxs:
        classes.setdefault(frozenset(passed[channel]), []).append(channel)
    for positions, channels in classes.items():
        items = [group[p] for p in sorted(positions)]
        makers = {names[i.dep.target.module] for i in items if _makes(i) and i.dep.target.module in names}
        layers = tuple(sorted(makers, key=lambda name: order[name]))
        yield Branch(layers[0], layers, tuple(channels), group, _obstacle(items, names, len(channels)))


def _makes(item: Any) -> bool:
    """Whether the channels are outputs of the item's layer, and not only its inputs."""
    inputs = (function.prune_conv_in_channels, function.prune_linear_in_channels)
    return item.dep.handler not in inputs


def _obstacle(items: Sequence[Any], names: Mapping[nn.Module, str], channels: int) -> str:
    if any(i.dep.target.type == ops.OPTYPE.OUTPUT for i in items):
        return "defines the output"
    if channels == 1:
        return "has one channel"
    for layer in (i.dep.target.module for i in items):
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1:
            if not layer.groups == layer.in_channels == layer.out_channels:
                return f"meets the grouped convolution {names[layer]}"
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            return f"meets {names[layer]}, whose statistics are over all channels"
    return ""


def _consumers(group: Any) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Weight, axis and indices where a group's channels are read."""
    for item in group:
        layer = item.dep.target.module
        if not _makes(item):
            yield layer.weight, 0 if getattr(layer, "transposed", False) else 1, torch.tensor(item.idxs)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(
        a.shape == b.shape and float((a - b).abs().max()) <= _TOLERANCE * float(b.max() - b.min()) + 1e-6
        for a, b in zip(found, expected, strict=True)
    )


def _noise_like(example: Tensor) -> Tensor:
    # A mid-gray frame would be the same with channels swapped.
    return torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0))
