"""Every figure follows from the samples in the page, and a page that was touched says otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from edgeseg.errors import BadInput
from edgeseg.report.check import check_page, main
from edgeseg.report.document import Document, Measured
from edgeseg.report.embedding import embed, read_page
from edgeseg.report.figures import figures
from edgeseg.report.page import page


def shown(text: str, key: str) -> str:
    (found,) = set(re.findall(rf'<data data-figure="{re.escape(key)}" value="[^"]*">([^<]*)</data>', text))
    return str(found)


def test_every_figure_is_equal(page_file: Path, golden_file: Path) -> None:
    for path in (page_file, golden_file):
        checked = check_page(path)
        assert checked.wrong == ()
        assert checked.figures > 300


def test_the_figures_are_those_of_the_samples(text: str, document: Document) -> None:
    """By other means than the package's own."""
    for row in document.artifacts:
        assert len(row.run_ms) == 6
        assert float(shown(text, f"{row.key}/run/p50_ms")) == pytest.approx(np.median(row.run_ms), abs=0.005)
        assert float(shown(text, f"{row.key}/run/p90_ms")) == pytest.approx(np.quantile(row.run_ms, 0.9), abs=0.005)
        mean = fmean(d.dice_source for d in row.differences)
        assert float(shown(text, f"{row.key}/here/mean_dice_source")) == pytest.approx(mean, abs=5e-5)
        agreement = fmean(d.agreement for d in row.differences)
        assert float(shown(text, f"{row.key}/here/agreement_min")) == pytest.approx(agreement, abs=5e-6)
        signal, noise = (sum(e[i] for e in row.energies if e) for i in (0, 1))
        sqnr = min(200.0, 10 * np.log10(signal / noise)) if noise else 200.0
        assert float(shown(text, f"{row.key}/here/sqnr_db_min")) == pytest.approx(sqnr, abs=0.05)
        worst, best = (f(row.differences, key=lambda d: d.dice or 0.0).dice for f in (min, max))
        ranked = row.ranked
        assert row.differences[ranked[0]].dice == worst
        assert row.differences[ranked[-1]].dice == best


@pytest.mark.parametrize(
    ("find", "put"),
    [
        (r'(data-figure="onnx-int8.onnxruntime/run/p50_ms" value="[^"]*">)[^<]*', r"\g<1>0.001"),
        (r'(data-figure="onnx-int8.onnxruntime/run/p50_ms" value=")[^"]*', r"\g<1>0.001"),
        (r'(data-figure="tflite-int8.litert/here/agreement_min/verdict" value="passed">)passed', r"\g<1>FAILED"),
        (r'(data-figure="release" value="[^"]*">)[^<]*', r"\g<1>All is well."),
        (r'data-figure="openvino-fp32.openvino/fps"', 'data-figure="openvino-fp32.openvino/dreams"'),
    ],
)
def test_a_figure_that_was_touched_is_found(page_file: Path, tmp_path: Path, find: str, put: str) -> None:
    text = page_file.read_text()
    touched, count = re.subn(find, put, text)
    assert count
    assert touched != text
    (tmp_path / "touched.html").write_text(touched)
    checked = check_page(tmp_path / "touched.html")
    assert len(checked.wrong) == count


def test_samples_that_were_touched_are_found(text: str, document: Document, tmp_path: Path) -> None:
    first = document.rows[0]
    slower = replace(first, run_ms=tuple(2 * t for t in first.run_ms))
    lower = replace(first.differences[0], agreement=0.5)
    worse = replace(first, differences=(lower, *first.differences[1:]))
    for row, part in ((slower, "/run/p50_ms"), (worse, "/here/agreement_min")):
        touched = replace(document, rows=(row, *document.rows[1:]))
        (tmp_path / "touched.html").write_text(text.replace(embed(document), embed(touched)))
        assert any(f"{first.key}{part}" in fault for fault in check_page(tmp_path / "touched.html").wrong)


def test_a_manifest_that_was_touched_is_found(document: Document, tmp_path: Path) -> None:
    touched = replace(document, manifest={**document.manifest, "name": "another"})
    (tmp_path / "page.html").write_text(page(touched))
    assert any("does not have its own digest" in fault for fault in check_page(tmp_path / "page.html").wrong)


def test_the_document_comes_back_as_it_was(document: Document, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page(document))
    assert read_page(tmp_path / "page.html")[1] == document


def test_what_is_no_page_is_refused(tmp_path: Path, golden_document: Document) -> None:
    (tmp_path / "page.html").write_text("<!doctype html><title>something else</title>")
    with pytest.raises(BadInput, match="not a page of edgeseg report"):
        read_page(tmp_path / "page.html")
    (tmp_path / "page.html").write_text(page(replace(golden_document, schema=99)))
    with pytest.raises(BadInput, match="schema 99"):
        read_page(tmp_path / "page.html")
    whole = page(golden_document)
    (tmp_path / "page.html").write_text(whole.replace('"rows":[', '"rows":[7,'))
    with pytest.raises(BadInput, match="damaged"):
        read_page(tmp_path / "page.html")
    (tmp_path / "page.html").write_bytes(b"\xff\xfe\x00")
    assert main([str(tmp_path / "page.html")]) == 2
    assert main([]) == 2


def test_the_module_checks_a_page_by_itself(page_file: Path) -> None:
    command = [sys.executable, "-m", "edgeseg.report.check", str(page_file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "equal, all" in result.stdout


def test_a_result_that_is_no_number_fails(document: Document) -> None:
    """Energies of NaN logits are kept as the largest error there is."""
    first = document.rows[0]
    broken = replace(first, energies=tuple((1.0, 1e300) for _ in first.energies))
    found = figures(replace(document, rows=(broken,)))
    assert found[f"{first.key}/here/sqnr_db_min/verdict"].value == "FAILED"
    assert found[f"{first.key}/verdict"].value == "FAILED"


def test_a_zero_has_no_sign(document: Document) -> None:
    assert not any(re.fullmatch(r"[+-]0*\.?0*", f.text) for f in figures(document).values())


def test_rows_without_results_have_no_figures() -> None:
    row = Measured("onnx-fp32", "fp32", "onnxruntime", "", "auto", 1, "absent", "onnxruntime is not installed")
    assert row.parity(0.05) is None
    assert row.sqnr_db is None
    assert row.ranked == []
