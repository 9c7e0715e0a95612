"""A frontier in words and figures for people: the table of terminal and page, notes, the best point, the CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import fields

from edgeseg.frontier.document import Frontier, Interval, Point
from edgeseg.frontier.judging import BASELINES

_BASELINE_HEADINGS = {"torch": "x torch", "torch_channels_last": "x torch CL", "openvino_fp32": "x OV fp32"}


def table(frontier: Frontier) -> tuple[list[str], list[list[str | None]]]:
    """Headings and cells, the fastest point first; a column in which nothing was measured is left out."""
    points = frontier.by_latency
    columns: dict[str, list[str | None]] = {
        "point": [p.name for p in points],
        "input": [p.input and f"{p.input[0]}x{p.input[1]}" for p in points],
        "MB": [three_digits(p.size_mb) for p in points],
        "MMACs": [_number(p.macs and p.macs / 1e6, ".0f") for p in points],
        "p50 ms": [three_digits(p.p50_ms) for p in points],
        "p90 ms": [three_digits(p.p90_ms) for p in points],
        "with frame ms": [three_digits(p.total_p50_ms) for p in points],
    }
    for kind, heading in _BASELINE_HEADINGS.items():
        columns[heading] = [three_digits(p.speedup.get(kind)) for p in points]
    columns |= {
        "Dice": [_with_interval(p.dice, p.dice_ci, "{:.2f}", 100) for p in points],
        "Dice difference": [_with_interval(p.dice_difference, p.dice_difference_ci, "{:+.2f}", 100) for p in points],
        "HC error mm": [_with_interval(p.hc_mae_mm, p.hc_mae_ci, "{:.2f}") for p in points],
        "HC difference": [_with_interval(p.hc_difference_mm, p.hc_difference_ci, "{:+.2f}") for p in points],
        "worst Dice": [_number(p.worst_dice and 100 * p.worst_dice, ".2f") for p in points],
        "worst frame": [p.worst_file for p in points],
        "dominated by": [p.dominated_by for p in points],
        "in size by": [p.dominated_in_size_by for p in points],
        "limits": [verdict(p) for p in points],
    }
    shown = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    return list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)]


def verdict(point: Point) -> str | None:
    """Whether a point keeps the limits, or why it was not measured."""
    if point.state != "measured":
        return f"{'FAILED' if point.state == 'failed' else 'not run'}: {point.reason}"
    return None if point.passed is None else "kept" if point.passed else point.reason


def headline(frontier: Frontier) -> str:
    """The best point within the limits in one line, or that there is none."""
    if frontier.best is None:
        return "no artifact keeps the limits" if any(p.passed is False for p in frontier.rows) else "no limit applies"
    best = frontier.find(frontier.best)
    parts = [f"{three_digits(best.p50_ms)} ms", f"{three_digits(best.size_mb)} MB"]
    parts += [f"{best.speedup[k]:.1f} times as fast as {text}" for k, text in BASELINES.items() if best.speedup.get(k)]
    dice = _with_interval(best.dice_difference, best.dice_difference_ci, "{:+.2f}", 100)
    circumference = _with_interval(best.hc_difference_mm, best.hc_difference_ci, "{:+.2f}")
    parts += [f"Dice {dice} points"] if dice else []
    parts += [f"head circumference error {circumference} mm"] if circumference else []
    parts += [f"worst frame {100 * best.worst_dice:.2f}"] if best.worst_dice is not None else []
    return f"best within the limits: {best.name}: {', '.join(parts)}"


def limits_line(frontier: Frontier) -> str:
    """The limits, and the point they start from."""
    limits = frontier.limits
    return (
        f"limits against {frontier.reference}: Dice -{100 * limits.dice_drop:g} points, head circumference error "
        f"+{limits.hc_increase_mm:g} mm, no frame under Dice {100 * limits.worst_dice:g}"
    )


def notes(frontier: Frontier) -> list[str]:
    """What could not be measured, and why."""
    measured = next(p for p in frontier.rows if p.samples)
    found = []
    if measured.dice is None:
        found.append(f"{frontier.data.folder} has no masks: Dice and worst frame were not measured")
    if measured.hc_mae_mm is None:
        found.append(
            f"{frontier.data.folder} has no pixel_size_mm and hc_mm_reference in its index.csv: "
            f"head circumference was not measured"
        )
    if frontier.data.exams is None:
        found.append(f"{frontier.data.folder} has no exam_id of several exams in its index.csv: no intervals")
    missing = [BASELINES[kind] for kind, name in frontier.baselines.items() if name is None]
    if missing:
        found.append(f"no ratio to {' and '.join(missing)}: not among the points")
    return found


def three_digits(value: float | None) -> str | None:
    """A number with three significant digits, never as a power of ten."""
    if value is None:
        return None
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}" if value >= 1e-3 else f"{value:.5f}"


def to_csv(frontier: Frontier) -> str:
    """One line a point: everything but the samples."""
    text = io.StringIO()
    lines = [dict(_flat(p)) for p in frontier.rows]
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(point: Point) -> Iterator[tuple[str, object]]:
    for field in fields(point):
        value = getattr(point, field.name)
        if field.name == "samples":
            continue
        if field.name == "speedup":
            yield from ((f"speedup_{kind}", value.get(kind)) for kind in BASELINES)
        elif field.name == "input":
            yield field.name, value and f"{value[0]}x{value[1]}"
        elif field.name.endswith("_ci"):
            low, high = value or (None, None)
            yield f"{field.name}_low", low
            yield f"{field.name}_high", high
        else:
            yield field.name, value


def _number(value: float | None, style: str) -> str | None:
    return None if value is None else f"{value:{style}}"


def _with_interval(value: float | None, interval: Interval | None, style: str, scale: float = 1.0) -> str | None:
    if value is None:
        return None
    ends = [style.format(scale * end) for end in interval or ()]
    return style.format(scale * value) + (f" [{', '.join(ends)}]" if ends else "")
