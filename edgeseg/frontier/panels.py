"""What each panel of the picture shows: which point lies where, its staircase, its limit and its range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeseg.frontier.document import Frontier, Interval, Point

_SPAN = 3  # a panel reaches this many allowances beyond the reference; what is worse is drawn at its edge
_MARGIN = 0.08  # of the height, above and below


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of accuracy, in the unit of its axis.

    Attributes:
        label: of the axis.
        missing: said where nothing was measured.
        higher_is_better: else lower is.
        allowance: from the reference to the limit; the scale on which differences matter.
        reference: of the reference; None where nothing was measured.
        limit: what a point must keep; None where nothing was measured.
        values: by name of the point.
        intervals: ends of the bars: the reference plus the paired interval of the difference from it.
    """

    label: str
    missing: str
    higher_is_better: bool
    allowance: float
    reference: float | None
    limit: float | None
    values: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in a panel: `value` was measured, `y` is where it is drawn; they differ where it is off the scale."""

    point: Point
    x: float
    y: float
    value: float
    interval: Interval | None
    dominated: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """A measure against a cost.

    Attributes:
        measure: up the axis.
        marks: the points, dominated ones first.
        staircase: (x, y) of the best that each cost buys in this panel, from left to right.
        bottom, top: of the axis.
    """

    measure: Measure
    marks: tuple[Mark, ...] = ()
    staircase: tuple[tuple[float, float], ...] = ()
    bottom: float = 0.0
    top: float = 1.0


def panels(frontier: Frontier, cost: str) -> list[Panel]:
    """Dice, head circumference and worst frame against a cost; without marks where nothing was measured.

    Args:
        frontier: judged.
        cost: "p50_ms" or "size_mb".
    """
    measures = (_dice(frontier), _circumference(frontier), _worst(frontier))
    return [_panel(measure, [p for p in frontier.rows if getattr(p, cost)], cost) for measure in measures]


def _dice(frontier: Frontier) -> Measure:
    base = frontier.find(frontier.reference).dice
    drop = frontier.limits.dice_drop
    return Measure(
        "mean Dice, % (higher is better)",
        f"{frontier.data.folder} has no masks:\nDice was not measured",
        True,
        100 * max(drop, 0.002),
        None if base is None else 100 * base,
        None if base is None else 100 * (base - drop),
        {p.name: 100 * p.dice for p in frontier.rows if p.dice is not None},
        _shifted({p.name: p.dice_difference_ci for p in frontier.rows}, base, 100),
    )


def _circumference(frontier: Frontier) -> Measure:
    base = frontier.find(frontier.reference).hc_mae_mm
    increase = frontier.limits.hc_increase_mm
    return Measure(
        "head circumference error, mm (lower is better)",
        f"{frontier.data.folder} has no reference in its index.csv:\nhead circumference was not measured",
        False,
        max(increase, 0.1),
        base,
        None if base is None else base + increase,
        {p.name: p.hc_mae_mm for p in frontier.rows if p.hc_mae_mm is not None},
        _shifted({p.name: p.hc_difference_ci for p in frontier.rows}, base, 1),
    )


def _worst(frontier: Frontier) -> Measure:
    base = frontier.find(frontier.reference).worst_dice
    return Measure(
        "Dice of the worst frame, % (higher is better)",
        f"{frontier.data.folder} has no masks:\nthe worst frame was not measured",
        True,
        5.0,
        None if base is None else 100 * base,
        None if base is None else 100 * frontier.limits.worst_dice,
        {p.name: 100 * p.worst_dice for p in frontier.rows if p.worst_dice is not None},
    )


def _shifted(differences: Mapping[str, Interval | None], base: float | None, scale: float) -> dict[str, Interval]:
    if base is None:
        return {}
    return {name: (scale * (base + d[0]), scale * (base + d[1])) for name, d in differences.items() if d is not None}


def _panel(measure: Measure, points: Sequence[Point], cost: str) -> Panel:
    measured = [(getattr(p, cost), measure.values[p.name], p) for p in points if p.name in measure.values]
    if not measured or measure.reference is None or measure.limit is None:
        return Panel(measure)
    bottom, top = _range(measure, [value for _, value, _ in measured])
    flag = "dominated" if cost == "p50_ms" else "dominated_in_size"
    marks = [
        Mark(p, x, min(max(v, bottom), top), v, measure.intervals.get(p.name), bool(getattr(p, flag)))
        for x, v, p in measured
    ]
    marks.sort(key=lambda m: not m.dominated)
    margin = _MARGIN * max(top - bottom, measure.allowance)
    return Panel(measure, tuple(marks), _staircase(marks, measure), bottom - margin, top + margin)


def _range(measure: Measure, values: Sequence[float]) -> tuple[float, float]:
    assert measure.reference is not None
    assert measure.limit is not None
    reach = _SPAN * measure.allowance
    if measure.higher_is_better:
        floor = min(measure.reference, measure.limit) - reach
        return max(floor, min(*values, measure.limit)), max(*values, measure.limit)
    ceiling = max(measure.reference, measure.limit) + reach
    return min(*values, measure.limit), min(ceiling, max(*values, measure.limit))


def _staircase(marks: Sequence[Mark], measure: Measure) -> tuple[tuple[float, float], ...]:
    sign = 1 if measure.higher_is_better else -1
    steps: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda m: (m.x, -sign * m.value)):
        if not steps or sign * mark.y > sign * steps[-1][1]:
            steps.append((mark.x, mark.y))
    return tuple(steps)
