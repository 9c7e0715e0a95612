"""frontier.html: picture, table and circumstances on one page that needs nothing else. Needs jinja2."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files

import jinja2
from markupsafe import Markup

from edgeseg.frontier import columns
from edgeseg.frontier.document import Frontier, Point
from edgeseg.frontier.style import COLOURS


def page(frontier: Frontier, svg: str) -> str:
    """The page of a judged frontier.

    Args:
        frontier: judged.
        svg: from `draw`; its colours become variables of the page, which has a light and a dark set of them.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("edgeseg.frontier").joinpath("page.html").read_text("utf-8"))
    headings, cells = columns.table(frontier)
    return template.render(
        frontier=frontier,
        colours=COLOURS,
        svg=Markup(inline(svg, _description(frontier))),
        headings=headings,
        rows=[(_kind(p, frontier.best), row) for p, row in zip(frontier.by_latency, cells, strict=True)],
        numeric=[all(row[i] is None or _is_number(row[i] or "") for row in cells) for i in range(len(headings))],
        headline=columns.headline(frontier),
        limits=columns.limits_line(frontier),
        notes=columns.notes(frontier),
    )


def inline(svg: str, description: str) -> str:
    """The SVG of `draw` as an element of a page, which has the colours of COLOURS as variables of the same names."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    return f'<svg {box[0]} role="img" aria-label="{escape(description)}">' + svg[svg.index(">") + 1 :]


def _description(frontier: Frontier) -> str:
    """For those who cannot see the picture: what it shows and what follows from it."""
    names = [p.name for p in frontier.by_latency if p.dominated is False]
    return (
        f"Six scatter plots: Dice, head circumference error and worst frame against latency, and against size. "
        f"Not dominated, the fastest first: {', '.join(names) or 'none'}. {columns.headline(frontier)}. "
        f"The table below has every figure."
    )


def _kind(point: Point, best: str | None) -> str:
    if point.state != "measured":
        return "missing"
    if point.name == best:
        return "best"
    return "dominated" if point.dominated else "broken" if point.passed is False else ""


def _is_number(cell: str) -> bool:
    """A figure, alone or with its interval."""
    return re.fullmatch(r"[+-]?[\d.]+( \[.*\])?", cell) is not None
