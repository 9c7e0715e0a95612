"""The picture: accuracy against latency (above) and size (below), as PNG and as SVG for the page. Needs matplotlib."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from edgeseg.frontier.captions import add_heading, add_labels, add_legend
from edgeseg.frontier.columns import three_digits
from edgeseg.frontier.document import Frontier, Point
from edgeseg.frontier.panels import Mark, Panel, panels
from edgeseg.frontier.style import COLOURS, COSTS, DOMINATED_SIZE, DPI, FILLS, MARKERS, SIZE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Drawing:
    """The same picture twice; the SVG has a title on every marker and its colours are those of COLOURS."""

    png: bytes
    svg: str


def draw(frontier: Frontier) -> Drawing:
    """Draw a judged frontier: three panels against latency, and three against size where any size is known."""
    costs = [cost for cost in COSTS if any(getattr(p, cost) and p.samples for p in frontier.rows)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(15, 1.6 + 4.2 * len(costs)), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(costs), 3, squeeze=False)
        shown = [
            (axes[row, i], p, cost) for row, cost in enumerate(costs) for i, p in enumerate(panels(frontier, cost))
        ]
        for ax, panel, cost in shown:
            _draw_panel(ax, panel, cost, frontier)
        add_heading(figure, frontier)
        add_legend(figure, frontier)
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[union-attr,call-arg]
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for ax, panel, _ in shown:
            add_labels(ax, panel, frontier)
        return Drawing(_png(figure), _svg(figure, frontier))


def _draw_panel(ax: Axes, panel: Panel, cost: str, frontier: Frontier) -> None:
    measure = panel.measure
    ax.set_ylabel(measure.label)
    ax.set_xlabel(COSTS[cost])
    if not panel.marks:
        ax.spines[:].set_visible(False)
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.text(0.5, 0.5, measure.missing, ha="center", va="center", color=COLOURS["faint"], transform=ax.transAxes)
        return
    _set_axes(ax, panel)
    if cost == "p50_ms":
        _add_ratios(ax, frontier)
    _draw_limits(ax, panel)
    xs, ys = zip(*panel.staircase, strict=True)
    ax.step([*xs, ax.get_xlim()[1]], [*ys, ys[-1]], where="post", color=COLOURS["faint"], lw=1.3, zorder=2)
    for mark in panel.marks:
        _draw_mark(ax, mark, frontier)


def _set_axes(ax: Axes, panel: Panel) -> None:
    xs = [m.x for m in panel.marks]
    ax.set_xscale("log")
    room = max(1.12, (max(xs) / min(xs)) ** 0.08)
    ax.set_xlim(min(xs) / room, max(xs) * room)
    ax.set_ylim(panel.bottom, panel.top)
    _number_ticks(ax)
    ax.grid(color=COLOURS["grid"], lw=0.7)
    ax.set_axisbelow(True)


def _number_ticks(ax: Any) -> None:
    low, high = sorted(ax.get_xlim())
    if high / low < 2:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    else:
        steps = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 7)
        ax.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _add_ratios(ax: Axes, frontier: Frontier) -> None:
    """A second axis on top: how many times as fast as torch eager."""
    name = frontier.baselines.get("torch")
    base = frontier.find(name).p50_ms if name else None
    if base is None:
        ax.spines["top"].set_visible(False)
        return
    top: Any = ax.twiny()
    top.set_xscale("log")
    top.set_xlim(*(base / x for x in ax.get_xlim()))
    _number_ticks(top)
    top.set_xlabel("times as fast as torch eager", color=COLOURS["faint"])
    top.spines["right"].set_visible(False)


def _draw_limits(ax: Axes, panel: Panel) -> None:
    measure = panel.measure
    if measure.limit is None or measure.reference is None:
        return
    beyond = panel.bottom if measure.higher_is_better else panel.top
    ax.axhspan(*sorted((measure.limit, beyond)), color=COLOURS["shade"], lw=0, zorder=0)
    ax.axhline(measure.limit, color=COLOURS["bad"], lw=1.1, ls=(0, (5, 3)), zorder=1)
    ax.axhline(measure.reference, color=COLOURS["faint"], lw=1, ls=":", zorder=1)
    ax.annotate(
        f"limit {measure.limit:.2f}",
        (1, measure.limit),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -4 if measure.higher_is_better else 4),
        textcoords="offset points",
        ha="right",
        va="top" if measure.higher_is_better else "bottom",
        color=COLOURS["bad"],
        fontsize=8,
    )


def _draw_mark(ax: Axes, mark: Mark, frontier: Frontier) -> None:
    colour = _colour(mark)
    marker, _ = MARKERS.get(mark.point.runtime or "", ("X", ""))
    fill, _ = FILLS.get(mark.point.precision or "", ("none", ""))
    order = 3 if mark.dominated else 5
    if mark.interval:
        ax.plot([mark.x] * 2, mark.interval, color=colour, lw=0.8 if mark.dominated else 1.2, zorder=order - 0.5)
    if mark.point.name == frontier.best:
        ax.plot(mark.x, mark.y, "o", ms=SIZE + 8, mfc="none", mec=COLOURS["good"], mew=1.3, zorder=order)
    ax.plot(
        mark.x,
        mark.y,
        marker=marker,
        fillstyle=fill,
        ms=DOMINATED_SIZE if mark.dominated else SIZE,
        mfc=colour,
        mfcalt=COLOURS["paper"],
        mec=colour,
        mew=1.1,
        zorder=order,
        clip_on=False,
        gid=f"point-{frontier.rows.index(mark.point)}",
    )


def _colour(mark: Mark) -> str:
    if mark.dominated:
        return COLOURS["gray"]
    return COLOURS["bad" if mark.point.passed is False else "good"]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Title": "edgeseg frontier"})
    return buffer.getvalue()


def _svg(figure: Figure, frontier: Frontier) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'<g id="point-(\d+)">', lambda found: found[0] + _title(frontier.rows[int(found[1])]), text)


def _title(point: Point) -> str:
    """What a pointer over a marker shows."""
    figures = (
        (three_digits(point.p50_ms), "{} ms"),
        (three_digits(point.size_mb), "{} MB"),
        (None if point.dice is None else 100 * point.dice, "Dice {:.2f}"),
        (point.hc_mae_mm, "head circumference error {:.2f} mm"),
        (None if point.worst_dice is None else 100 * point.worst_dice, "worst frame {:.2f}"),
        (point.dominated_by, "dominated by {}"),
    )
    parts = [text.format(value) for value, text in figures if value is not None]
    return f"<title>{escape(point.name + ': ' + ', '.join(parts))}</title>"
