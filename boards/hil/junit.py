"""A station record as JUnit XML, which CI servers show."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from edgeseg.boards.hil.station import Record
from edgeseg.durable import write_file

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT = {"failed": "failure", "error": "error", "refused": "skipped"}


def write_junit(record: Record, path: Path) -> None:
    """One suite a board, one case a step of a bundle, and one for a bundle that did not come so far.

    Raises OSError where it cannot be written.
    """
    root = Element("testsuites", name=f"edgeseg hil {record.run}")
    for board in record.boards:
        _suite(root, board, list(_cases(record, board)))
    for attribute in ("tests", "failures", "errors", "skipped"):
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in root)))
    indent(root)
    write_file(path, tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _cases(record: Record, board: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """The last result of each step, and of each bundle that has none of its own to show."""
    events = [event for event in record.events if event.get("board") == board]
    last = {(e["bundle"], e["step"]): e for e in events if e["event"] == "step"}
    bundles = {e["bundle"]: e for e in events if e["event"] == "bundle"}
    for name in record.digests:
        steps = [(step, event) for (bundle, step), event in last.items() if bundle == name]
        yield from ((f"{name}: {step}", event) for step, event in steps)
        end = bundles.get(name, {"status": "error", "reason": "the run ended before it"})
        shown = any(event["status"] == end["status"] for _, event in steps)
        if not steps or (end["status"] in _ELEMENT and not shown):
            yield name, end


def _suite(root: Element, board: str, cases: list[tuple[str, dict[str, Any]]]) -> None:
    count = {status: sum(event["status"] == status for _, event in cases) for status in _ELEMENT}
    suite = SubElement(
        root,
        "testsuite",
        name=board,
        tests=str(len(cases)),
        failures=str(count["failed"]),
        errors=str(count["error"]),
        skipped=str(count["refused"]),
    )
    for name, event in cases:
        seconds = f"{event.get('seconds') or 0:.3f}"
        case = SubElement(suite, "testcase", classname=board, name=_printable(name), time=seconds)
        if event["status"] in _ELEMENT:
            SubElement(case, _ELEMENT[event["status"]], message=_printable(event.get("reason") or ""))


def _printable(text: str) -> str:
    """Without what XML cannot hold, as the colours of a terminal in what a board said."""
    return _NOT_XML.sub("?", text)
