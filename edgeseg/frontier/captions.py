"""The words in the picture: names of points, heading, legend. Needs matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edgeseg.frontier.document import Frontier
from edgeseg.frontier.labels import Box, Label, place
from edgeseg.frontier.panels import Mark, Panel
from edgeseg.frontier.style import COLOURS, DOMINATED_SIZE, FILLS, MARKERS, PIXELS, SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

_BESIDE = 8.0  # pixels between marker and text where no line is needed


def add_labels(ax: Axes, panel: Panel, frontier: Frontier) -> None:
    """Name the best point, what is on the frontier and the baselines, as far as there is room."""
    baselines = (frontier.baselines.get(kind) for kind in ("torch", "torch_channels_last"))
    always = {frontier.best, frontier.reference, *baselines}
    marks = [m for m in panel.marks if not m.dominated or m.point.name in always]
    first = (frontier.best, frontier.reference)
    marks.sort(key=lambda m: (first.index(m.point.name) if m.point.name in first else 2, m.dominated, m.x))
    obstacles = [_marker_box(ax, m) for m in panel.marks] + [_box(text) for text in ax.texts]
    texts = [_text(mark, frontier) for mark in marks]
    # One network on several engines has one name: repeated only where it fits beside its marker.
    labels = [_label(ax, m, frontier, repeated=texts[i] in texts[:i]) for i, m in enumerate(marks)]
    window = ax.get_window_extent()
    bounds = Box(window.x0, window.y0, window.x1, window.y1)
    for mark, label, box in zip(marks, labels, place(labels, obstacles, _line_points(ax, panel), bounds), strict=True):
        if box is not None:
            _write(ax, mark, label, box, frontier)


def _label(ax: Axes, mark: Mark, frontier: Frontier, *, repeated: bool) -> Label:
    text = ax.text(0, 0, _text(mark, frontier), fontsize=8, fontweight=_weight(mark, frontier))
    box = _box(text)
    text.remove()
    x, y = ax.transData.transform((mark.x, mark.y))
    radius = (SIZE / 2 + (5 if mark.point.name == frontier.best else 2)) * PIXELS
    size = box.right - box.left, box.top - box.bottom
    return Label(x, y, radius, *size, reach=_BESIDE) if repeated else Label(x, y, radius, *size)


def _write(ax: Axes, mark: Mark, label: Label, box: Box, frontier: Frontier) -> None:
    """Put the text where there is room, with a line to its marker where that is not beside it."""
    corner = ((box.left - label.x) / PIXELS, (box.bottom - label.y) / PIXELS)
    nearest = (min(max(label.x, box.left), box.right), min(max(label.y, box.bottom), box.top))
    colour = COLOURS["faint"] if mark.dominated else COLOURS["ink"]
    if math.dist(nearest, (label.x, label.y)) > label.radius + _BESIDE * PIXELS:
        ends = ax.transData.inverted().transform((nearest, (label.x, label.y)))
        ax.plot(ends[:, 0], ends[:, 1], color=COLOURS["gray"], lw=0.7, zorder=2.2)
    ax.annotate(
        _text(mark, frontier),
        (mark.x, mark.y),
        xytext=corner,
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=8,
        fontweight=_weight(mark, frontier),
        color=colour,
        bbox={"facecolor": COLOURS["paper"], "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        zorder=6,
    )


def _text(mark: Mark, frontier: Frontier) -> str:
    point = mark.point
    kind = point.runtime if point.is_source else point.precision
    alone = point.is_source and len({p.model for p in frontier.rows if p.is_source}) == 1
    text = f"{'' if alone else point.model} {kind}".strip()
    text += " (reference)" if point.name == frontier.reference else ""
    if mark.y == mark.value:
        return text
    arrow = "\u2193" if mark.value < mark.y else "\u2191"
    return f"{text} {arrow} {mark.value:.1f}"


def _weight(mark: Mark, frontier: Frontier) -> str:
    return "bold" if mark.point.name == frontier.best else "normal"


def _marker_box(ax: Axes, mark: Mark) -> Box:
    x, y = ax.transData.transform((mark.x, mark.y))
    half = (DOMINATED_SIZE if mark.dominated else SIZE) / 2 * PIXELS
    return Box(x - half, y - half, x + half, y + half)


def _box(text: Text) -> Box:
    extent = text.get_window_extent()
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)


def _line_points(ax: Axes, panel: Panel) -> list[tuple[float, float]]:
    """Points every few pixels along the staircase, the limit, the reference and the bars."""
    corners = list(panel.staircase)
    ends = zip(corners, [*corners[1:], (ax.get_xlim()[1], corners[-1][1])], strict=True) if corners else ()
    lines = [part for a, b in ends for part in ((a, (b[0], a[1])), ((b[0], a[1]), b))]
    lines += [((m.x, m.interval[0]), (m.x, m.interval[1])) for m in panel.marks if m.interval]
    left, right = ax.get_xlim()
    lines += [((left, y), (right, y)) for y in (panel.measure.limit, panel.measure.reference) if y is not None]
    pixels = [ax.transData.transform(line) for line in lines]
    return [
        (float(x), float(y))
        for start, end in pixels
        for x, y in np.linspace(start, end, max(2, int(np.hypot(*(end - start)) // 5)))
    ]


def add_heading(figure: Figure, frontier: Frontier) -> None:
    """Say what was measured where, and what the bars are."""
    data = frontier.data
    exams = f" of {len(set(data.exams))} exams" if data.exams else ""
    bars = f"bars: {frontier.reference} plus the 95 % interval of the paired difference from it, drawn by exam"
    figure.suptitle(
        f"Accuracy against latency and size: {len(data.frames)} frames{exams}, {data.folder} {data.split}\n".strip()
        + f"\n{frontier.machine}; {frontier.threads} thread(s), all points by turns"
        + (f"; {bars}" if data.exams else ""),
        x=0.008,
        ha="left",
        fontsize=10.5,
        linespacing=1.5,
    )


def add_legend(figure: Figure, frontier: Frontier) -> None:
    """Explain the colours, and the shapes and fillings that appear."""
    measured = [p for p in frontier.rows if p.samples]
    style: dict[str, Any] = {"ls": "none", "mfcalt": COLOURS["paper"], "ms": 8}

    def handle(marker: str, fill: str, colour: str, label: str, **more: Any) -> Line2D:
        options = {**style, "marker": marker, "fillstyle": fill, "mfc": colour, "mec": colour, "label": label, **more}
        return Line2D([], [], **options)

    kept, broken, gray, faint = (COLOURS[name] for name in ("good", "bad", "gray", "faint"))
    handles = [
        handle("o", "full", kept, "on the frontier, limits kept"),
        handle("o", "full", broken, "on the frontier, a limit broken"),
        handle("o", "full", gray, "dominated", ms=DOMINATED_SIZE),
        handle("o", "none", kept, "best within the limits", ms=13),
    ]
    engines = {p.runtime for p in measured}
    handles += [handle(m, "full", faint, text) for name, (m, text) in MARKERS.items() if name in engines]
    precisions = {p.precision for p in measured}
    handles += [handle("o", fill, faint, text) for name, (fill, text) in FILLS.items() if name in precisions]
    figure.legend(handles=handles, loc="outside lower center", ncols=(len(handles) + 1) // 2, frameon=False, fontsize=9)
