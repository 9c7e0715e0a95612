"""Latency by board as lines on one axis; in percent of its length, so that text keeps its size at any width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from edgeseg.hil_report.comparison import Comparison, Figures, Result
from edgeseg.report.drawing import WIDTH, Scale

_MANY_TICKS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: from p50 to p99, in ms.

    Attributes:
        label: what it is of.
        p50_ms, p99_ms: as measured.
        limit_ms: of the p99 on that board; None where there was none.
        judged: whether the limit is held against it.
        note: for people, beside the figures.
        emulated: whether to say that it is no hardware.
        counts: whether the result does that it is of.
        p50, p99, limit: where they are on the axis, percent of its length.
    """

    label: str
    p50_ms: float
    p99_ms: float
    limit_ms: float | None
    judged: bool
    note: str
    emulated: bool
    counts: bool
    p50: float
    p99: float
    limit: float | None

    @property
    def beyond(self) -> bool:
        """Whether its p99 is above the limit."""
        return self.limit_ms is not None and self.p99_ms > self.limit_ms


@dataclass(frozen=True, slots=True)
class Plot:
    """Groups of lines on one logarithmic axis.

    Attributes:
        groups: (heading, lines) each.
        ticks: (where on the axis in percent, as text).
        description: for those who do not see it.
    """

    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    ticks: tuple[tuple[float, str], ...]
    description: str


def bundle_plot(comparison: Comparison, bundle: str) -> Plot | None:
    """Every artifact and engine of a bundle, board by board: like beside like. None where nothing was timed."""
    results = comparison.of_bundle(bundle)
    emulated = frozenset(board.label for board in comparison.boards if board.emulated)
    drawn = _Drawn([(r, f) for r in results for f in r.figures], emulated)
    names = dict.fromkeys(f.name for r in results for f in r.figures if f.p50_ms is not None)
    groups = {name: [(r.board, r, f) for r in results for f in r.figures if f.name == name] for name in names}
    return drawn.plot(groups, f"Latency of {bundle} by artifact, engine and board")


def history_plot(comparison: Comparison, bundle: str) -> Plot | None:
    """The fastest artifact of a bundle, run by run, of boards with at least two; None where there is none of them."""
    groups: dict[str, list[tuple[str, Result, Figures]]] = {}
    for result in (*comparison.of_bundle(bundle), *comparison.history):
        if result.bundle == bundle and (figures := result.judged) and figures.p99_ms is not None:
            line = (result.at[:19].replace("T", " "), result, figures)
            groups.setdefault(result.board, []).append(line)
    groups = {board: lines for board, lines in groups.items() if len(lines) > 1}
    drawn = _Drawn([(result, figures) for lines in groups.values() for _, result, figures in lines])
    return drawn.plot(groups, f"Latency of {bundle} by board, run by run", name_each=True)


class _Drawn:
    """The axis that all lines of a plot have in common."""

    def __init__(self, timed: Sequence[tuple[Result, Figures]], emulated: Set[str] = frozenset()) -> None:
        self._emulated = emulated
        ends = [t for _, f in timed for t in (f.p50_ms, f.p99_ms) if t is not None]
        limits = [limit for r, f in timed if f.p50_ms is not None and (limit := _limit(r)) is not None and limit > 0]
        self._scale = Scale.of([*ends, *limits] if ends else [])

    def plot(
        self, groups: dict[str, list[tuple[str, Result, Figures]]], title: str, *, name_each: bool = False
    ) -> Plot | None:
        if self._scale is None:
            return None
        drawn = tuple((heading, tuple(self._lines(lines, name_each))) for heading, lines in groups.items())
        said = "; ".join(f"{heading}: {', '.join(map(_said, lines))}" for heading, lines in drawn)
        return Plot(
            drawn, tuple(self._ticks()), f"{title}, p50 to p99 in ms. {said}. The table below has every figure."
        )

    def _lines(self, lines: Iterable[tuple[str, Result, Figures]], name_each: bool) -> Iterator[Line]:
        for label, result, figures in lines:
            if figures.p50_ms is None or figures.p99_ms is None:
                continue
            limit = _limit(result)
            yield Line(
                label=label,
                p50_ms=figures.p50_ms,
                p99_ms=figures.p99_ms,
                limit_ms=limit,
                judged=figures.judged,
                emulated=result.board in self._emulated,
                note=_note(result, figures, name_each),
                counts=result.counts,
                p50=self._at(figures.p50_ms),
                p99=self._at(figures.p99_ms),
                limit=None if limit is None or limit <= 0 else self._at(limit),
            )

    def _at(self, value_ms: float) -> float:
        assert self._scale
        return round(100 * self._scale.x(value_ms) / WIDTH, 2)

    def _ticks(self) -> Iterator[tuple[float, str]]:
        assert self._scale
        ticks = self._scale.ticks
        if len(ticks) > _MANY_TICKS:
            ticks = [tick for tick in ticks if f"{tick:e}".startswith("1.")]
        for tick in ticks:
            yield self._at(tick), f"{tick:g}"


def _note(result: Result, figures: Figures, name_each: bool) -> str:
    if not result.counts:
        return "does not count"
    return figures.artifact if name_each else "fastest" if figures.judged else ""


def _limit(result: Result) -> float | None:
    return result.limits.p99_ms if result.limits else None


def _said(line: Line) -> str:
    beyond = f", above the limit of {line.limit_ms:g}" if line.beyond else ""
    return f"{line.label} {line.p50_ms:.3g} to {line.p99_ms:.3g}{beyond}"
