"""What a report says of each artifact, and of the release."""

from __future__ import annotations

from dataclasses import replace

from edgeseg.report.document import Document, Measured
from edgeseg.report.figures import figures
from edgeseg.report.judging import BEYOND, FAILED, NOT_RUN, PASSED
from edgeseg.report.page import page
from edgeseg.report.verdict import passes, release, verdict_of


def with_first(document: Document, row: Measured) -> Document:
    return replace(document, rows=(row, *document.rows[1:]))


def lower(row: Measured) -> Measured:
    """One that agrees with the source on 98 of 100 pixels only."""
    return replace(row, differences=tuple(replace(d, agreement=0.98) for d in row.differences))


def test_a_sound_release_passes(document: Document) -> None:
    manifest = document.read_manifest()
    assert passes(document)
    assert release(document, manifest) == "6 artifacts released at conversion, none refused; 6 of 6 passed here."


def test_a_broken_gate_fails_with_figure_limit_and_frames(document: Document) -> None:
    row = lower(document.rows[0])
    touched = with_first(document, row)
    verdict = verdict_of(row, touched, touched.read_manifest())
    assert verdict.word == FAILED
    assert any("mask agreement 0.98000, gate >= 0.995, on 8 frames of ellipses test" in r for r in verdict.reasons)
    assert not passes(touched)
    sentence = release(touched, touched.read_manifest())
    assert f"5 of 6 passed here, FAILED: {row.artifact} on {row.runtime} (" in sentence
    assert "What did not pass" in page(touched)


def test_on_golden_frames_the_tolerances_decide(golden_document: Document) -> None:
    """Means over a handful of frames are not what the gates are for, where something narrower was recorded."""
    row = lower(golden_document.rows[0])
    touched = with_first(golden_document, row)
    assert verdict_of(row, touched, touched.read_manifest()).word == PASSED
    assert figures(touched)[f"{row.key}/here/agreement_min/verdict"].value == BEYOND
    tested = replace(row, self_test=("logits: SQNR 3.0 dB, tolerance >= 30.0",))
    verdict = verdict_of(tested, with_first(touched, tested), touched.read_manifest())
    assert verdict.word == FAILED
    assert verdict.reasons == ("logits: SQNR 3.0 dB, tolerance >= 30.0",)
    untested = replace(row, self_test=None)
    assert verdict_of(untested, with_first(touched, untested), touched.read_manifest()).word == FAILED


def test_an_execution_fault_fails_once(golden_document: Document) -> None:
    fault = "27 layers ran in bf16, recorded at conversion: 0"
    row = replace(golden_document.rows[0], faults=(fault,), self_test=(f"execution: {fault}",))
    touched = with_first(golden_document, row)
    assert verdict_of(row, touched, touched.read_manifest()).reasons == (f"execution: {fault}",)
    assert fault in page(touched)


def test_an_absent_engine_is_no_failure_and_no_pass(golden_document: Document) -> None:
    absent = Measured("onnx-fp32", "fp32", "onnxruntime", "", "auto", 1, "absent", "onnxruntime is not installed")
    manifest = golden_document.read_manifest()
    alone = replace(golden_document, rows=(absent,))
    assert verdict_of(absent, alone, manifest).word == NOT_RUN
    assert not passes(alone)
    both = replace(golden_document, rows=(*golden_document.rows[1:], absent))
    assert passes(both)
    assert "5 of 5 passed here, 1 could not be run here." in release(both, manifest)
    assert "onnxruntime is not installed" in page(both)


def test_what_fails_at_conversion_fails_here(golden_document: Document) -> None:
    content = dict(golden_document.manifest)
    first, *others = content["artifacts"]
    content["artifacts"] = [{**first, "parity": {**first["parity"], "agreement": 0.9}}, *others]
    touched = replace(golden_document, manifest=content)
    name = f"{first['format']}-{first['precision']}"
    row = next(r for r in touched.rows if r.artifact == name)
    reasons = verdict_of(row, touched, touched.read_manifest()).reasons
    assert reasons == ("mask agreement 0.90000, gate >= 0.995, at conversion",)


def test_refused_artifacts_are_named_with_their_reason(golden_document: Document) -> None:
    refused = {"format": "tflite", "precision": "fp16", "reason": "SQNR dB 12.0, gate >= 20", "parity": None}
    touched = replace(golden_document, manifest={**golden_document.manifest, "refused": [refused]})
    assert "1 refused (tflite-fp16: SQNR dB 12.0, gate >= 20)" in release(touched, touched.read_manifest())
