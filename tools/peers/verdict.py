"""edgeseg's artifact against a peer's on the same engine, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from contest import Result

from edgeseg import metrics

_TIMES = ("p50 ms", "p10 ms")
_ACCURACY = ("Dice", "worst frame", "HC mm", "agreement", "SQNR dB")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Differences are edgeseg's minus the peer's, over the same frames, with paired 95 % intervals by exam.

    Attributes:
        ours, theirs: names.
        runtime: the engine of both.
        speed: the peer's median time over edgeseg's; above 1 edgeseg is faster.
        speed_p10: the same of the tenth percentiles, which other load on the machine disturbs less.
        dice, hc_mm: difference of the means and its interval; None where it was not measured.
        agreement: difference of the mask agreement with the fp32 source.
        sqnr_db: difference of the SQNR; None for another network than the source.
    """

    ours: str
    theirs: str
    runtime: str
    speed: float
    speed_p10: float | None
    dice: tuple[float, float, float] | None
    hc_mm: tuple[float, float, float] | None
    agreement: float | None
    sqnr_db: float | None

    @property
    def faster(self) -> bool:
        """By the median."""
        return self.speed > 1

    @property
    def no_less_accurate(self) -> bool:
        """Neither Dice nor head circumference is worse by more than chance: the interval does not exclude equality."""
        return (self.dice is None or self.dice[2] >= 0) and (self.hc_mm is None or self.hc_mm[1] <= 0)

    @property
    def holds(self) -> bool:
        """Faster and no less accurate."""
        return self.faster and self.no_less_accurate


def verdicts(results: Sequence[Result], exams: Sequence[str]) -> list[Verdict]:
    """Every int8 artifact of edgeseg against every peer on the same engine."""
    peers = [r for r in results if r.side not in ("source", "edgeseg")]
    ours = [r for r in results if r.side == "edgeseg"]
    return [_verdict(a, b, exams) for b in peers for a in ours if a.runtime == b.runtime]


def table(results: Sequence[Result]) -> str:
    """All results as Markdown."""
    columns = ("model", "engine", "MB", *_TIMES, *_ACCURACY, "int8 layers")
    return markdown(columns, [_cells(result) for result in results])


def verdict_table(found: Sequence[Verdict]) -> str:
    """All verdicts as Markdown."""
    accuracy = ("Dice points", "HC mm", "agreement", "SQNR dB")
    columns = ("edgeseg", "peer", "engine", "speed", "by p10", *accuracy, "verdict")
    return markdown(columns, [_verdict_cells(verdict) for verdict in found])


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up in plain text too."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _verdict(ours: Result, theirs: Result, exams: Sequence[str]) -> Verdict:
    if not ours.p50_ms or not theirs.p50_ms:
        raise ValueError(f"{ours.name} and {theirs.name} were not both timed")
    return Verdict(
        ours=ours.name,
        theirs=theirs.name,
        runtime=ours.runtime,
        speed=theirs.p50_ms / ours.p50_ms,
        speed_p10=theirs.p10_ms / ours.p10_ms if theirs.p10_ms and ours.p10_ms else None,
        dice=_difference(ours.frame_dice, theirs.frame_dice, exams),
        hc_mm=_difference(ours.frame_hc_mm, theirs.frame_hc_mm, exams),
        agreement=_minus(ours.agreement, theirs.agreement),
        sqnr_db=_minus(ours.sqnr_db, theirs.sqnr_db),
    )


def _difference(a: Sequence[float], b: Sequence[float], exams: Sequence[str]) -> tuple[float, float, float] | None:
    """Mean of a - b, and the interval of that mean; None unless both cover all frames."""
    if not len(a) == len(b) == len(exams):
        return None
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return float(np.mean(differences)), *metrics.bootstrap_interval(differences, exams)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _cells(result: Result) -> list[str]:
    layers = None if result.layers is None else f"{result.int8_layers}/{result.layers}"
    return [
        result.name,
        result.runtime,
        _number(result.size_mb, ".2f"),
        _number(result.p50_ms, ".2f"),
        _number(result.p10_ms, ".2f"),
        _number(result.dice, ".2f", 100),
        _number(result.worst_dice, ".2f", 100),
        _number(result.hc_mae_mm, ".2f"),
        _number(result.agreement, ".5f"),
        _number(result.sqnr_db, ".1f"),
        layers or "-",
    ]


def _verdict_cells(verdict: Verdict) -> list[str]:
    words = [] if verdict.faster else ["SLOWER"]
    words += [] if verdict.no_less_accurate else ["LESS ACCURATE"]
    return [
        verdict.ours,
        verdict.theirs,
        verdict.runtime,
        f"{verdict.speed:.2f}x",
        "-" if verdict.speed_p10 is None else f"{verdict.speed_p10:.2f}x",
        _interval(verdict.dice, "+.2f", 100),
        _interval(verdict.hc_mm, "+.2f"),
        _number(verdict.agreement, "+.5f"),
        _number(verdict.sqnr_db, "+.1f"),
        " and ".join(words) or "faster and no less accurate",
    ]


def _interval(value: tuple[float, float, float] | None, style: str, scale: float = 1) -> str:
    if value is None:
        return "-"
    mean, low, high = (scale * v for v in value)
    return f"{mean:{style}} [{low:{style}}, {high:{style}}]"


def _number(value: float | None, style: str, scale: float = 1) -> str:
    return "-" if value is None else f"{scale * value:{style}}"
