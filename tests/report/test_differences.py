"""Two releases compared: what got worse is said, and so is what cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeseg.report.differences import BETTER, SAME, WORSE, changes, facts
from edgeseg.report.document import Document
from edgeseg.report.page import page


def after(new: Document, old: Document) -> Document:
    return replace(new, previous=replace(old, previous=None))


def test_a_release_is_the_same_as_itself(golden_document: Document) -> None:
    both = after(golden_document, golden_document)
    found = changes(both)
    assert len(found) > 60
    assert {change.word for change in found} <= {SAME, "no limit"}
    assert facts(both) == ()
    assert "0 of " in page(both)
    assert changes(golden_document) == ()
    assert facts(golden_document) == ()


@pytest.mark.parametrize(("factor", "word"), [(2.0, WORSE), (0.5, BETTER), (1.04, SAME)])
def test_latency(golden_document: Document, factor: float, word: str) -> None:
    first = golden_document.rows[0]
    row = replace(first, run_ms=tuple(factor * t for t in first.run_ms))
    both = after(replace(golden_document, rows=(row, *golden_document.rows[1:])), golden_document)
    (change,) = (c for c in changes(both) if c.artifact == first.artifact and c.what.endswith("p50_ms"))
    assert change.word == word
    assert change.change == pytest.approx(100 * (factor - 1))


def test_accuracy_here_and_at_conversion(golden_document: Document) -> None:
    first = golden_document.rows[0]
    row = replace(first, differences=tuple(replace(d, agreement=d.agreement - 0.001) for d in first.differences))
    content = dict(golden_document.manifest)
    content["artifacts"] = [
        {**a, "parity": {**a["parity"], "agreement": a["parity"]["agreement"] - 0.001}} for a in content["artifacts"]
    ]
    worse = replace(golden_document, manifest=content, rows=(row, *golden_document.rows[1:]))
    found = [c for c in changes(after(worse, golden_document)) if c.word == WORSE]
    conversion = [c for c in found if c.what == "at conversion/agreement_min"]
    assert len(conversion) == 6
    here = [c for c in found if c.what == f"here, on {first.runtime}/agreement_min"]
    assert [c.artifact for c in here] == [first.artifact]
    assert all(c.change == pytest.approx(-0.001) for c in conversion + here)
    better = [c for c in changes(after(golden_document, worse)) if c.word == BETTER]
    assert len(better) == len(found)
    assert "What got worse" in page(after(worse, golden_document))


def test_what_else_has_changed_is_said(golden_document: Document) -> None:
    content = dict(golden_document.manifest)
    gates = {**content["gates"], "agreement_min": 0.9, "sqnr_db_min": 30.0, "hd95_max": None}
    content |= {"gates": gates, "artifacts": content["artifacts"][1:], "classes": ["background", "femur"]}
    changed = replace(golden_document, manifest=content, machine="another machine")
    found = facts(after(changed, golden_document))
    assert ("Limit looser", "agreement_min: 0.995, now 0.9") in found
    assert ("Limit stricter", "sqnr_db_min: 20, now 30") in found
    assert any(what == "Limit looser" and text.startswith("hd95_max: ") and "now off" in text for what, text in found)
    assert any(what == "Artifact gone" for what, _ in found)
    assert any(what == "Classes" and text.endswith(", now background, femur") for what, text in found)
    assert any(what == "Not comparable" and "another machine" in text for what, text in found)


def test_other_frames_are_not_compared(document: Document, golden_document: Document) -> None:
    both = after(document, golden_document)
    assert ("Not compared", "accuracy here: the frames are others") in facts(both)
    assert not any("here, on" in change.what for change in changes(both))


def test_a_bundle_alone_has_no_latencies(golden_document: Document) -> None:
    both = after(golden_document, replace(golden_document, rows=(), frames=None))
    assert any(what == "Not compared" and "latency" in text for what, text in facts(both))
    assert {c.what for c in changes(both) if "p50_ms" in c.what} == set()
    assert any(c.what == "size_mb" for c in changes(both))
