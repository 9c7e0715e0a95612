"""What a pruning run found and did."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.converters.sensitivity import Probe


@dataclass(frozen=True, slots=True)
class Figures:
    """A network's score (mean Dice, 0..1), cost and, where it was measured, latency."""

    score: float
    macs: int
    parameters: int
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its number from 1, the score before fine-tuning, and the figures after it."""

    number: int
    score_pruned: float
    after: Figures


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a pruning run did.

    Attributes:
        target: "ratio", "macs" or "latency_ms".
        wanted: the target.
        reached: the share of channels removed, the share of multiply-accumulates kept, or milliseconds.
        met: whether `reached` is within the target. A ratio always is: what is protected and rounded stays out of it.
        ratio: share taken from the branches that may be pruned.
        before, after: the dense and the pruned network.
        channels: output channels of each layer, before and after.
        whole: branches left whole, with the reason.
        sensitivity: the scan's results.
        rounds: score before and figures after the fine-tuning of each round.
    """

    target: str
    wanted: float
    reached: float
    met: bool
    ratio: float
    before: Figures
    after: Figures
    channels: dict[str, tuple[int, int]]
    whole: dict[str, str]
    sensitivity: tuple[Probe, ...]
    rounds: tuple[Round, ...]
