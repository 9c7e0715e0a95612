"""Compute every figure of a page again from the raw samples in it: `python -m edgeseg.report.check report.html`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from edgeseg.errors import EdgesegError
from edgeseg.manifest import digest
from edgeseg.report.document import Document
from edgeseg.report.embedding import read_page
from edgeseg.report.figures import Figure, figures

# Sums may be rounded otherwise by another version of numpy, and no more than that.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a page.

    Attributes:
        figures: how many figures stand on it.
        wrong: those that do not follow from its samples, a line each.
    """

    figures: int
    wrong: tuple[str, ...]


@dataclass(slots=True)
class _Shown:
    """A figure as it stands on a page: its name, the value of its element, and what a reader sees."""

    key: str
    value: str
    text: str = ""


class _Reader(HTMLParser):
    """Collects the figures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[_Shown] = []
        self._open: _Shown | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a figure."""
        found = dict(attrs)
        if tag == "data" and found.get("data-figure") is not None:
            self._open = _Shown(found["data-figure"] or "", found.get("value") or "")
            self.shown.append(self._open)

    def handle_data(self, data: str) -> None:
        """What a reader sees of it."""
        if self._open is not None:
            self._open.text += data

    def handle_endtag(self, tag: str) -> None:
        """Close it."""
        if tag == "data":
            self._open = None


def check_page(path: Path | str) -> Checked:
    """Compare every figure on a page with what follows from its samples and its manifest.

    Raises:
        BadInput: it is no page of `edgeseg report`.
        BundleError: the manifest in it is none.
    """
    text, document = read_page(path)
    reader = _Reader()
    reader.feed(text)
    expected = figures(document)
    wrong = [fault for shown in reader.shown if (fault := _fault(shown, expected.get(shown.key)))]
    wrong += _manifest_faults(document)
    if not reader.shown:
        wrong.append("there is no figure on the page")
    return Checked(len(reader.shown), tuple(wrong))


def _fault(shown: _Shown, expected: Figure | None) -> str | None:
    if expected is None:
        return f"{shown.key}: the page shows {shown.text}, its samples say nothing of it"
    if isinstance(expected.value, str):
        equal = shown.value == shown.text == expected.value
        return None if equal else f"{shown.key}: the page says {shown.text!r}, its samples say {expected.value!r}"
    value, seen = _number(shown.value), _number(shown.text)
    if not math.isclose(value, expected.value, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE):
        return f"{shown.key}: the page has {shown.value}, its samples give {expected.value!r}"
    if not abs(seen - expected.value) <= _half_a_digit(shown.text):
        return f"{shown.key}: the page shows {shown.text}, its samples give {expected.text}"
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _half_a_digit(text: str) -> float:
    """How far a number may be from what it was rounded to, as in 0.0005 for 1.230 and 0.0005e-7 for 1.230e-07."""
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.500001 * 10.0 ** (int(exponent or 0) - decimals) if not math.isnan(_number(text)) else 0.0


def _manifest_faults(document: Document) -> list[str]:
    """A manifest that is not the one its digest was made of."""
    documents = [document] + ([document.previous] if document.previous else [])
    return [
        f"the manifest of {d.bundle} does not have its own digest"
        for d in documents
        if d.manifest.get("digest") is not None and d.manifest["digest"] != digest(d.manifest)
    ]


def describe(path: Path | str, checked: Checked) -> str:
    """What came of it, for people."""
    if not checked.wrong:
        return f"{path}: equal, all {checked.figures} figures follow from the samples in the page"
    listed = "\n".join(f"  {fault}" for fault in checked.wrong)
    return f"{path}: DIFFERS, {len(checked.wrong)} of {checked.figures} figures:\n{listed}"


def main(arguments: Sequence[str]) -> int:
    """Check the pages given; 0 where all are equal, 1 where one differs, 2 where one is no page."""
    if not arguments:
        print("usage: python -m edgeseg.report.check report.html ...", file=sys.stderr)
        return 2
    code = 0
    for path in arguments:
        try:
            checked = check_page(path)
        except (EdgesegError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(describe(path, checked))
        code = max(code, 1 if checked.wrong else 0)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
