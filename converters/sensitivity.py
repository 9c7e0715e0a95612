"""Which branches a network cannot spare: each loses a share of its channels alone, and Dice is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgeseg.converters.branches import Branches
from edgeseg.converters.widths import nearest_multiple


@dataclass(frozen=True, slots=True)
class Probe:
    """What the loss of some of its channels alone costs.

    Attributes:
        branch: its first layer.
        channels: how many it has.
        removed: how many were taken away, the least important ones.
        drop: of the score (Dice, 0..1), untrained.
        protected: whether that was too much.
    """

    branch: str
    channels: int
    removed: int
    drop: float
    protected: bool


def scan(
    branches: Branches,
    importance: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    share: float,
    round_to: int,
    limit: float,
    score: Callable[[nn.Module], float],
    baseline: float,
    report: Callable[[str], None],
) -> tuple[Probe, ...]:
    """Probe branches one after the other; one scoring each, and the module is as before at the end.

    Args:
        branches: of the module that `score` is given; batch-norm statistics stay as they are.
        importance: by branch [channels].
        names: the branches to probe; those too thin to lose anything are left out.
        share: of a branch's channels to take away, rounded so that a multiple of `round_to` stays.
        round_to: of the channels that stay.
        limit: on the drop, above which a branch is protected.
        score: mean Dice on held frames.
        baseline: the score of the whole module.
        report: given a line after each probe.
    """
    probes = []
    for number, name in enumerate(names, 1):
        size = len(branches[name])
        removed = size - nearest_multiple(size, size * (1 - share), round_to)
        if not removed:
            continue
        with branches.silenced({name: least(importance[name], removed)}):
            drop = baseline - score(branches.module)
        probes.append(Probe(name, size, removed, drop, drop > limit))
        report(f"probe {number}/{len(names)}: {name} without {removed} of {size} channels loses {drop:.4f} Dice")
    return tuple(probes)


def least(importance: Tensor, count: int) -> list[int]:
    """Positions of the `count` least important channels."""
    return importance.argsort(stable=True)[:count].tolist()
