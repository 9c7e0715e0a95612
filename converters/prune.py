"""Structured pruning for latency: whole channels leave in rounds, with fine-tuning after each."""

from __future__ import annotations

import copy
import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgeseg.converters.branches import Branches, whole_branches
from edgeseg.converters.importance import Batches, Loss, magnitude, taylor
from edgeseg.converters.macs import macs, parameters
from edgeseg.converters.prune_report import Figures, PruneReport, Round
from edgeseg.converters.prune_state import Progress, load_progress, save_progress
from edgeseg.converters.recipe import Prune
from edgeseg.converters.sensitivity import Probe, least, scan
from edgeseg.converters.widths import Widths, least_important, of_round, same_share, smallest_ratio
from edgeseg.errors import BadInput

Score = Callable[[nn.Module], float]
"""Mean Dice (0..1) of a module on held frames."""

_MACS_TRIALS = 10
_LATENCY_TRIALS = 6
_LATENCY_MARGIN = 0.97  # two measurements of the same network differ by some percent


class FineTune(Protocol):
    """Trains a module in place under a name, by which a killed run goes on; leaves it in eval mode."""

    def __call__(  # noqa: D102
        self,
        module: nn.Module,
        name: str,
        *,
        on_step: Callable[[int, int], None] | None = None,
        penalty: Callable[[], Tensor] | None = None,
    ) -> None: ...


def prune(
    module: nn.Module,
    example: Tensor,
    options: Prune,
    *,
    batches: Batches,
    loss: Loss,
    fine_tune: FineTune,
    score: Score,
    latency: Callable[[nn.Module], float] | None = None,
    state: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> PruneReport:
    """Prune a network in place; it is in eval mode at the end.

    The widths of all layers are decided once, on the dense network. Each round then removes the channels that matter
    least by then, so that a target found for untrained widths holds for the trained ones.

    Args:
        module: a trained network on normalised input, without edgeseg's own normalisation in front.
        example: [1, C, H, W] float32 as the module takes it.
        options: the recipe's section.
        batches: labelled batches for the Taylor importance, the same ones at every call.
        loss: of logits and targets.
        fine_tune: called after each round, with the name `prune-<round>`.
        score: on held frames.
        latency: milliseconds of a module as it will be deployed; for `latency_ms` only.
        state: file that keeps the run's state after every round, which the same call on the same dense network goes
            on from; it stays there at the end.
        report: given a line at each stage.

    Returns:
        What was done. Where a target is out of reach, the narrowest network and `met` false.

    Raises:
        BadInput: an unknown layer in `ignore`, no labelled batches, a ratio too small to remove anything, or a state of
            another run.
        UnsupportedModel: nothing in the module can be pruned; says why, naming the layers.
        ConversionError: the loss is not finite.
    """
    settings = {**asdict(options), "weights": _fingerprint(module), "example": list(example.shape)}
    if _target(options)[0] == "latency_ms" and latency is None:
        raise BadInput("latency_ms needs a runtime to measure with, and there is none")
    measured = latency if options.latency_ms is not None else None
    run = _Run(module, example, options, batches, loss, score, measured, report)
    progress = load_progress(state, module, settings) if state else None
    if progress is None:
        progress = run.plan(settings)
        if state:
            save_progress(state, module, progress)
    for number in range(len(progress.rounds) + 1, options.steps + 1):
        progress = run.round(number, progress, fine_tune)
        if state:
            save_progress(state, module, progress)
    return run.finish(progress)


@dataclass(frozen=True, slots=True)
class _Run:
    """What the stages of one run share."""

    module: nn.Module
    example: Tensor
    options: Prune
    batches: Batches
    loss: Loss
    score: Score
    latency: Callable[[nn.Module], float] | None
    report: Callable[[str], None]

    def plan(self, settings: dict[str, Any]) -> Progress:
        """Decide what stays: obstacles, ignored layers, the sensitivity scan, then the search for the target."""
        whole = whole_branches(self.module, self.example)
        branches = Branches(self.module, self.example)
        whole |= _ignored(branches, self.options.ignore)
        importance = self._importance(branches)
        before = self._figures(self.module)
        probes: tuple[Probe, ...] = ()
        if self.options.protect is not False:
            probes = scan(
                branches,
                importance,
                [name for name in branches if name not in whole],
                share=self.options.probe,
                round_to=self.options.round_to,
                limit=self.options.protect,
                score=self.score,
                baseline=before.score,
                report=self.report,
            )
        whole |= {p.branch: f"is protected, it would cost {p.drop:.4f} Dice" for p in probes if p.protected}
        free = {name: importance[name] for name in branches if name not in whole}
        sizes = {name: len(branches[name]) for name in free}
        ratio, widths = self._search(before, free)
        if widths == sizes:
            raise BadInput(_nothing_leaves(self.options, whole, sizes))
        return Progress(settings, before, _layers(self.module), whole, probes, ratio, sizes, widths)

    def round(self, number: int, progress: Progress, fine_tune: FineTune) -> Progress:
        """Prune to the round's widths and fine-tune."""
        steps = self.options.steps
        self._narrow(self.module, of_round(progress.sizes, progress.widths, number, steps, self.options.round_to))
        pruned = self.score(self.module)
        self.report(f"round {number}/{steps}: {macs(self.module, self.example) / 1e6:.0f} MMACs, Dice {pruned:.4f}")
        fine_tune(self.module, f"prune-{number}")
        self.module.eval()
        after = self._figures(self.module, measure=number == steps)
        self.report(f"round {number}/{steps}: Dice {after.score:.4f} after fine-tuning")
        return replace(progress, rounds=(*progress.rounds, Round(number, pruned, after)))

    def finish(self, progress: Progress) -> PruneReport:
        """Compare the last round with the target."""
        after = progress.rounds[-1].after
        target, wanted = _target(self.options)
        removed = 1 - sum(progress.widths.values()) / sum(progress.sizes.values())
        reached = {"ratio": removed, "macs": after.macs / progress.before.macs, "latency_ms": after.latency_ms or 0.0}
        layers = _layers(self.module)
        return PruneReport(
            target,
            wanted,
            reached[target],
            target == "ratio" or reached[target] <= wanted,
            progress.ratio,
            progress.before,
            after,
            {name: (count, layers[name]) for name, count in progress.layers.items()},
            progress.whole,
            progress.sensitivity,
            progress.rounds,
        )

    def _search(self, before: Figures, free: dict[str, Tensor]) -> tuple[float, Widths]:
        """The smallest ratio that meets the target, and the widths it gives."""
        target, wanted = _target(self.options)
        if target == "ratio":
            return wanted, self._widths(free, wanted)
        if before.latency_ms is not None and before.latency_ms <= wanted:
            raise BadInput(f"latency_ms is {wanted:g} and the network takes {before.latency_ms:.3f} ms: ask for less")
        known: dict[tuple[int, ...], float] = {}

        def cost(ratio: float) -> float:
            widths = self._widths(free, ratio)
            key = tuple(widths.values())
            if key not in known:
                trial = copy.deepcopy(self.module)
                self._narrow(trial, widths, free)
                known[key] = self.latency(trial) if self.latency else macs(trial, self.example) / before.macs
                self.report(f"ratio {ratio:.3f}: {known[key]:.3f} {target}, {wanted:g} wanted")
            return known[key]

        limit, trials = (wanted * _LATENCY_MARGIN, _LATENCY_TRIALS) if self.latency else (wanted, _MACS_TRIALS)
        ratio = smallest_ratio(cost, limit, trials)
        return ratio, self._widths(free, ratio)

    def _widths(self, free: dict[str, Tensor], ratio: float) -> Widths:
        if self.options.scope == "global":
            return least_important(free, ratio, self.options.round_to)
        return same_share({name: len(values) for name, values in free.items()}, ratio, self.options.round_to)

    def _narrow(self, module: nn.Module, widths: Widths, importance: dict[str, Tensor] | None = None) -> None:
        branches = Branches(module, self.example)
        importance = self._importance(branches) if importance is None else importance
        branches.remove({name: least(importance[name], len(branches[name]) - width) for name, width in widths.items()})

    def _importance(self, branches: Branches) -> dict[str, Tensor]:
        if self.options.importance == "magnitude":
            return magnitude(branches)
        return taylor(branches, self.batches, self.loss)

    def _figures(self, module: nn.Module, measure: bool = True) -> Figures:
        latency_ms = self.latency(copy.deepcopy(module)) if self.latency and measure else None
        return Figures(self.score(module), macs(module, self.example), parameters(module), latency_ms)


def _target(options: Prune) -> tuple[str, float]:
    found = [(name, getattr(options, name)) for name in ("ratio", "macs", "latency_ms")]
    targets = [(name, value) for name, value in found if value is not None]
    if len(targets) != 1:
        raise BadInput(f"pruning has {len(targets)} targets, expected exactly one of ratio, macs, latency_ms")
    return targets[0]


def _ignored(branches: Branches, ignore: Sequence[str]) -> dict[str, str]:
    """Branches that a layer of `ignore`, or a layer inside it, makes."""
    for name in ignore:
        if name not in branches.names.values():
            near = difflib.get_close_matches(name, branches.names.values(), 1, 0.0)
            raise BadInput(f"ignore names {name!r}, which is no layer of this network: did you mean {near[0]!r}?")
    return {
        branch.name: "is ignored"
        for branch in branches.values()
        if any(layer == name or layer.startswith(f"{name}.") for name in ignore for layer in branch.layers)
    }


def _nothing_leaves(options: Prune, whole: dict[str, str], sizes: Widths) -> str:
    if sizes:
        target, wanted = _target(options)
        return f"{target} {wanted:g} removes nothing at round_to {options.round_to}: raise one or lower the other"
    reasons = "; ".join(f"{name} {reason}" for name, reason in list(whole.items())[:5])
    return f"every layer stays whole ({reasons}): raise protect, or ignore fewer layers"


def _layers(module: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and linear layer."""
    return {
        name: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    }


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
