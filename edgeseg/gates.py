"""Whether an artifact's differences are within the limits: each gate with its value, the failed ones as reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.evidence import Gates, Parity
from edgeseg.strata import EMPTY, EXAM, SMALL, WORST_TENTH, find
from edgeseg.types import Precision

WORST_DICE_SLACK = 0.02

# Option of `Gates`: what it limits, and how its value is printed.
_NAMES = {
    "logit_error_max": ("logit error", ".2e"),
    "agreement_min": ("mask agreement", ".5f"),
    "sqnr_db_min": ("SQNR dB", ".1f"),
    "hd95_max": ("HD95 over the diagonal", ".4f"),
    "area_difference_max": ("area difference", ".4f"),
    "shift_max": ("displacement of the masks over the diagonal", ".5f"),
    "hc_difference_max_mm": ("head circumference difference in mm", ".2f"),
    "small_dice_source_min": ("Dice to the source of small structures", ".4f"),
    "worst_tenth_dice_source_min": ("Dice to the source of the worst tenth", ".4f"),
    "exam_dice_source_min": ("Dice to the source of the worst exam", ".4f"),
    "dice_drop_max": ("Dice drop", ".4f"),
    "hc_increase_max_mm": ("head circumference error increase in mm", ".2f"),
    "worst_dice_min": ("worst frame's Dice", ".3f"),
    "exam_dice_drop_max": ("Dice drop of the worst exam", ".4f"),
    "empty_false_positive_max": ("false positives on empty frames", ".5f"),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One gate: what was measured, what is allowed.

    Attributes:
        gate: the option of `Gates`, as in `agreement_min`.
        name: for people.
        value: None where it was not measured.
        limit: None where the gate is off, or does not hold for this artifact.
        passed: None without a value or a limit.
        interval: of the value, 95 %, by exam; None where there is none.
    """

    gate: str
    name: str
    value: float | None
    limit: float | None
    passed: bool | None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        """As in `mask agreement 0.99000, gate >= 0.995`."""
        value = "not measured" if self.value is None else format(self.value, _NAMES[self.gate][1])
        limit = "off" if self.limit is None else f"{'<=' if _is_upper(self.gate) else '>='} {self.limit:g}"
        return f"{self.name} {value}, gate {limit}"


def judge(parity: Parity, gates: Gates, precision: Precision) -> tuple[Judged, ...]:
    """Every gate between an artifact and the network it was made of, those of the task last."""
    exact = precision is Precision.FP32
    # Without a reference circumference nobody knows whether the outline is a head's, and an ellipse fits it.
    heads = parity.hc_increase_mm is not None
    return (
        _judged("logit_error_max", parity.logit_error, gates.logit_error_max if exact else None),
        _judged("agreement_min", parity.agreement, gates.agreement_min),
        _judged("sqnr_db_min", parity.sqnr_db, gates.sqnr_db_min),
        _judged("shift_max", parity.shift_share, gates.shift_max),
        _judged("hd95_max", parity.hd95_share, gates.hd95_max, parity.hd95_ci),
        _judged("area_difference_max", parity.area_difference, gates.area_difference_max, parity.area_difference_ci),
        _judged("hc_difference_max_mm", parity.hc_difference_mm, gates.hc_difference_max_mm if heads else None),
        _judged("small_dice_source_min", _figure(parity, SMALL, "dice_source"), gates.small_dice_source_min),
        _judged(
            "worst_tenth_dice_source_min",
            _figure(parity, WORST_TENTH, "dice_source"),
            gates.worst_tenth_dice_source_min,
        ),
        _judged("exam_dice_source_min", _figure(parity, EXAM, "dice_source"), gates.exam_dice_source_min),
        *judge_task(parity, gates),
    )


def judge_task(parity: Parity, gates: Gates) -> tuple[Judged, ...]:
    """The gates on what a network is for, which also hold where another network took the source's place."""
    lowest = gates.worst_dice_min
    if lowest is not None and parity.worst_dice_source is not None:
        # A limit on a difference: a source that just reaches it leaves no room for rounding.
        lowest = None if parity.worst_dice_source < lowest else min(lowest, parity.worst_dice_source - WORST_DICE_SLACK)
    return (
        _judged("dice_drop_max", parity.dice_drop, gates.dice_drop_max, parity.dice_drop_ci),
        _judged("hc_increase_max_mm", parity.hc_increase_mm, gates.hc_increase_max_mm, parity.hc_increase_ci),
        _judged("worst_dice_min", parity.worst_dice, lowest),
        _judged("exam_dice_drop_max", _figure(parity, EXAM, "dice_drop"), gates.exam_dice_drop_max),
        _judged("empty_false_positive_max", _figure(parity, EMPTY, "false_positive"), gates.empty_false_positive_max),
    )


def failures(judged: Sequence[Judged]) -> tuple[str, ...]:
    """Every failed gate with the figure and the limit, in the order of `judged`."""
    return tuple(str(j) for j in judged if j.passed is False)


def failed_gate(parity: Parity, gates: Gates, precision: Precision) -> str | None:
    """The first gate that an artifact fails, with the figure and the limit; None where it passes them all."""
    return next(iter(failures(judge(parity, gates, precision))), None)


def failed_task_gate(parity: Parity, gates: Gates) -> str | None:
    """The same for what the network is for."""
    return next(iter(failures(judge_task(parity, gates))), None)


def _figure(parity: Parity, stratum: str, name: str) -> float | None:
    found = find(parity, stratum)
    value: float | None = getattr(found, name) if found else None
    return value


def _is_upper(gate: str) -> bool:
    return "_max" in gate


def _judged(gate: str, value: float | None, limit: float | None, interval: tuple[float, float] | None = None) -> Judged:
    passed = None
    if value is not None and limit is not None:
        # Written so that NaN fails.
        passed = value <= limit if _is_upper(gate) else value >= limit
    return Judged(gate, _NAMES[gate][0], value, limit, passed, interval)
