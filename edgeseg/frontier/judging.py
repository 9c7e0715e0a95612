"""From raw samples to figures: means, paired intervals, ratios, gates and who is dominated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeseg import metrics
from edgeseg.errors import BadInput, InferenceError
from edgeseg.frontier.document import Data, Frontier, Interval, Limits, Point, Samples

BASELINES = {
    "torch": "torch eager",
    "torch_channels_last": "torch channels-last with fused batch norms",
    "openvino_fp32": "OpenVINO fp32 of the reference's bundle",
}
_Scores = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Mean:
    """A mean over frames, and its difference from the reference's. All None without values, intervals without exams."""

    mean: float | None = None
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None


def judge(frontier: Frontier) -> Frontier:
    """The document with every figure computed anew from its samples, its reference and its limits.

    Raises:
        BadInput: where the reference is none of the points.
        InferenceError: where the reference was not measured.
    """
    reference = frontier.find(frontier.reference)
    if reference.samples is None:
        raise InferenceError(f"the reference {reference.name} was not measured: {reference.reason}; give --reference")
    points = [_measured(p, reference.samples, frontier.data) for p in frontier.rows]
    baselines = _baselines(points, reference)
    points = [replace(p, speedup=_speedup(p, baselines)) for p in points]
    points = [_with_rank(p, points) for p in points]
    points = [_with_verdict(p, frontier.limits) for p in points]
    passed = [p for p in points if p.passed and not p.is_source]
    best = min(passed, key=lambda p: p.p50_ms or 0.0, default=None)
    return replace(
        frontier,
        rows=tuple(points),
        baselines={kind: point.name if point else None for kind, point in baselines.items()},
        best=best.name if best else None,
    )


def reference_of(points: Sequence[Point]) -> str:
    """The point that differences start from where the user names none: the first source, else the first fp32 artifact.

    Raises BadInput where there is neither.
    """
    measured = [p for p in points if p.samples is not None]
    for wanted in ((p for p in measured if p.is_source), (p for p in measured if p.precision == "fp32")):
        if first := next(wanted, None):
            return first.name
    raise BadInput("no source and no fp32 artifact was measured to compare with: give --source or --reference")


def dominates(better: _Scores, other: _Scores) -> bool:
    """Whether scores (lower is better) are at least as good on every axis and better on one."""
    return all(a <= b for a, b in zip(better, other, strict=True)) and better != other


def _measured(point: Point, reference: Samples, data: Data) -> Point:
    samples = point.samples
    if samples is None:
        return point
    unknown = (None,) * len(data.frames)
    dice = _mean(samples.dice or unknown, reference.dice or unknown, data.exams)
    circumference = _mean(samples.hc_error_mm, reference.hc_error_mm, data.exams)
    worst = int(np.argmin(samples.dice)) if samples.dice else None
    p50, p90 = np.percentile(samples.run_ms, (50, 90))
    return replace(
        point,
        dice=dice.mean,
        dice_ci=dice.interval,
        dice_difference=dice.difference,
        dice_difference_ci=dice.difference_interval,
        hc_mae_mm=circumference.mean,
        hc_mae_ci=circumference.interval,
        hc_difference_mm=circumference.difference,
        hc_difference_ci=circumference.difference_interval,
        worst_dice=min(samples.dice) if samples.dice else None,
        worst_file=None if worst is None else data.frames[worst].file,
        p50_ms=float(p50),
        p90_ms=float(p90),
        total_p50_ms=float(np.median(samples.total_ms)),
    )


def _mean(values: Sequence[float | None], reference: Sequence[float | None], exams: Sequence[str] | None) -> _Mean:
    """Over the frames on which both were measured."""
    names = exams or ("",) * len(values)
    pairs = [
        (a, b, exam) for a, b, exam in zip(values, reference, names, strict=True) if a is not None and b is not None
    ]
    if not pairs:
        return _Mean()
    own, base, groups = zip(*pairs, strict=True)
    drawn = exams is not None and len(set(groups)) > 1
    return _Mean(
        float(np.mean(own)),
        metrics.bootstrap_interval(own, groups) if drawn else None,
        float(np.mean(np.subtract(own, base))),
        metrics.paired_interval(own, base, groups) if drawn else None,
    )


def _baselines(points: Sequence[Point], reference: Point) -> dict[str, Point | None]:
    """Of the reference's own source and bundle; the first source where the reference's is not measured."""
    same = [p for p in points if p.model == reference.model or (p.source and p.source == reference.source)]
    sources = [p for p in [*same, *points] if p.is_source]

    def first(candidates: Iterable[Point], **wanted: str) -> Point | None:
        fitting = (p for p in candidates if all(getattr(p, name) == value for name, value in wanted.items()))
        return next((p for p in fitting if p.p50_ms is not None), None)

    return {
        "torch": first(sources, runtime="torch"),
        "torch_channels_last": first(sources, runtime="torch-channels-last"),
        "openvino_fp32": first(same, runtime="openvino", format="openvino", precision="fp32"),
    }


def _speedup(point: Point, baselines: Mapping[str, Point | None]) -> dict[str, float | None]:
    return {
        kind: base.p50_ms / point.p50_ms if base and base.p50_ms and point.p50_ms else None
        for kind, base in baselines.items()
    }


def _with_rank(point: Point, points: Sequence[Point]) -> Point:
    by_latency = _dominators(point, points, "p50_ms")
    by_size = _dominators(point, points, "size_mb")
    return replace(
        point,
        dominated=None if by_latency is None else bool(by_latency),
        dominated_by=by_latency[0] if by_latency else None,
        dominated_in_size=None if by_size is None else bool(by_size),
        dominated_in_size_by=by_size[0] if by_size else None,
    )


def _dominators(point: Point, points: Sequence[Point], cost: str) -> list[str] | None:
    """Names of the points that dominate this one, the cheapest first; None where it has no place on these axes."""
    own = _scores(point, cost)
    if own is None:
        return None
    others = [(scores, p.name) for p in points if (scores := _scores(p, cost)) is not None]
    return [name for scores, name in sorted(others) if dominates(scores, own)]


def _scores(point: Point, cost: str) -> _Scores | None:
    """Cost, -Dice, circumference error and -worst Dice, as far as this run measured them; lower is better in each.

    Rounded to what is worth telling apart: the cost to three digits, Dice to 0.01 points, the error to 0.01 mm.
    """
    spent: float | None = getattr(point, cost)
    accuracy = [
        round(sign * value, digits)
        for sign, value, digits in ((-1, point.dice, 4), (1, point.hc_mae_mm, 2), (-1, point.worst_dice, 4))
        if value is not None
    ]
    return None if spent is None or point.samples is None or not accuracy else (float(f"{spent:.3g}"), *accuracy)


def _with_verdict(point: Point, limits: Limits) -> Point:
    if point.samples is None:
        return point
    checks = (
        (point.dice_difference, -limits.dice_drop, 1, 100, "Dice {0:+.2f} points, limit {1:+.2f}"),
        (point.hc_difference_mm, limits.hc_increase_mm, -1, 1, "head circumference {0:+.2f} mm, limit {1:+.2f}"),
        (point.worst_dice, limits.worst_dice, 1, 100, f"{point.worst_file} at Dice {{0:.2f}}, limit {{1:.2f}}"),
    )
    # Written so that NaN fails.
    failures = [
        text.format(scale * value, scale * limit)
        for value, limit, sign, scale, text in checks
        if value is not None and not sign * value >= sign * limit
    ]
    measurable = any(value is not None for value, *_ in checks)
    return replace(point, passed=not failures if measurable else None, reason="; ".join(failures) or None)
