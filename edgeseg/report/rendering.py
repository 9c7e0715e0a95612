"""Pages that need nothing else: one layout, one style, every value escaped. Needs jinja2."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

import jinja2
from markupsafe import Markup


def render(
    folder: Traversable,
    *,
    title: str,
    made_by: str,
    contents: Sequence[tuple[str, str]],
    glossary: Sequence[tuple[str, str]],
    **context: object,
) -> str:
    """A page of a template that extends `layout.html`.

    Args:
        folder: has the template, `page.html`, and `page.css`, which comes after the style of all pages.
        title: of the browser's window.
        made_by: the version of edgeseg.
        contents: each section's id and heading; the last one is `words`.
        glossary: its words and what they mean.
        context: for the template; all of it is escaped that is not Markup.
    """
    shared = files(__package__)
    sources = {"layout.html": _text(shared, "layout.html"), "page.html": _text(folder, "page.html")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _text(shared, "layout.css") + _text(folder, "page.css")
    return environment.get_template("page.html").render(
        title=title, made_by=made_by, contents=contents, glossary=glossary, style=Markup(style), **context
    )


def _text(folder: Traversable, name: str) -> str:
    return folder.joinpath(name).read_text("utf-8")
