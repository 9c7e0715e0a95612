"""The page: self-contained, accessible, legible in light and dark, and nothing in it can become markup."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from edgeseg.report.document import Document
from edgeseg.report.embedding import read_page
from edgeseg.report.page import page

from ..html_tree import Element, Tree

LARGEST = 3_000_000


@pytest.fixture(scope="module")
def tree(text: str) -> Element:
    found = Tree(text)
    assert [e.tag for e in found._open] == ["root"]
    return found.root


def test_the_page_is_small_enough(page_file: Path, golden_file: Path) -> None:
    assert page_file.stat().st_size <= LARGEST
    assert golden_file.stat().st_size <= LARGEST


def test_nothing_is_fetched_and_no_script_runs(text: str, tree: Element) -> None:
    assert text.lstrip().startswith("<!doctype html>")
    (policy,) = (e for e in tree.all("meta") if e.attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attrs["content"]
    assert "script-src" not in policy.attrs["content"]
    assert [e.attrs["type"] for e in tree.all("script")] == ["application/json"]
    for element in tree.all(*{e.tag for e in _every(tree)}):
        assert not any(name.startswith("on") for name in element.attrs), element
        for name in ("href", "src", "xlink:href", "srcset", "action", "data"):
            target = element.attrs.get(name, "#")
            assert target.startswith(("#", "data:")), (element.tag, name, target[:60])
    style = "".join(e.text for e in tree.all("style"))
    assert "url(" not in style
    assert "@import" not in style


def test_a_screen_reader_finds_its_way(tree: Element) -> None:
    (html,) = tree.all("html")
    assert html.attrs["lang"] == "en"
    assert [len(tree.all(tag)) for tag in ("h1", "main", "nav", "header", "footer")] == [1] * 5
    assert "release report" in tree.all("head")[0].all("title")[0].text
    levels = [int(e.tag[1]) for e in tree.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert all(now - before <= 1 for before, now in pairwise(levels)), levels
    assert max(levels) == 3
    titles = [e.words() for e in tree.all("h2", "h3")]
    assert len(set(titles)) == len(titles)


def test_every_link_inside_the_page_leads_somewhere_and_ids_are_unique(tree: Element) -> None:
    ids = [e.attrs["id"] for e in _every(tree) if "id" in e.attrs]
    assert len(set(ids)) == len(ids)
    targets = [e.attrs[n] for e in _every(tree) for n in ("href",) if e.attrs.get(n, "").startswith("#")]
    named = [e.attrs["aria-labelledby"] for e in _every(tree) if "aria-labelledby" in e.attrs]
    assert targets
    assert {t[1:] for t in targets} | set(named) <= set(ids)
    assert tree.all("a")[0].attrs == {"class": "skip", "href": "#content"}


def test_tables_have_captions_and_scoped_headings(tree: Element) -> None:
    tables = tree.all("table")
    assert len(tables) > 10
    for table in tables:
        (caption,) = table.all("caption")
        assert caption.words().strip()
        assert table.all("th")
        assert all(e.attrs.get("scope") in ("col", "row", "colgroup", "rowgroup") for e in table.all("th"))
        widths = {sum(int(c.attrs.get("colspan", 1)) for c in row.children) for row in table.all("tr")}
        assert len(widths) == 1, caption.words()
    regions = [e for e in tree.all("div") if e.attrs.get("class") == "scroll"]
    assert len(regions) == len(tables)
    assert all(e.attrs["tabindex"] == "0" and e.attrs["role"] == "region" and e.attrs["aria-label"] for e in regions)


def test_pictures_have_words(tree: Element) -> None:
    assert not tree.all("img")
    pictures = [e for e in tree.all("svg") if e.attrs.get("aria-hidden") != "true"]
    assert len(pictures) >= 6 * 6 + 6  # two for each of three frames of six artifacts, one latency each
    for picture in pictures:
        assert picture.attrs["role"] == "img"
        assert len(picture.all("title")[0].text) > 20
    assert len(tree.all("figcaption")) == 18


def test_source_and_artifact_differ_in_more_than_colour(tree: Element) -> None:
    style = "".join(e.text for e in tree.all("style"))
    rules = {name: re.search(rf"\.outline\.{name} {{(.*?)}}", style) for name in ("source", "artifact", "truth")}
    dashes = [re.search(r"stroke-dasharray: ([\d. ]+)", rule[1]) for rule in rules.values() if rule]
    assert dashes[0] is None
    assert dashes[1]
    assert dashes[2]
    assert dashes[1][1] != dashes[2][1]
    outlines = [e.attrs["class"] for e in tree.all("path") if "outline" in e.attrs.get("class", "")]
    assert outlines.count("outline source") == outlines.count("outline artifact") == 18 + 1  # and the legend


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """By WCAG 2.2."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(scheme: str) -> None:
    css = files("edgeseg.report").joinpath("layout.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root {(.*?)}", css, re.DOTALL)
    )
    assert light.keys() == dark.keys()
    colours = light if scheme == "light" else dark
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for text in ("ink", "faint", "good", "bad", "link"):
        for ground in ("paper", "panel", "shade"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["gray"], colours["paper"]) >= 3
    used = set(re.findall(r"var\(--(\w+)\)", css))
    assert used <= light.keys()


def test_whatever_a_manifest_says_stays_text(golden_document: Document, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"
    manifest = {**golden_document.manifest, "name": hostile, "classes": ["background", hostile]}
    refused = {"format": "onnx", "precision": "int8", "reason": hostile, "parity": None}
    made = {**manifest["provenance"], "source": {"file": hostile, "sha256": hostile}, "tools": {hostile: hostile}}
    manifest |= {"refused": [refused], "provenance": made}
    rows = (replace(golden_document.rows[0], state="failed", reason=hostile, self_test=(hostile,)),)
    document = replace(golden_document, bundle=hostile, manifest=manifest, machine=hostile, command=hostile, rows=rows)
    text = page(replace(document, previous=golden_document))
    root = Tree(text).root
    assert len(root.all("script")) == 1
    assert not root.all("img")
    assert hostile in root.all("h1")[0].words()
    assert "49" not in root.all("h1")[0].words()
    (tmp_path / "page.html").write_text(text)
    assert read_page(tmp_path / "page.html")[1].machine == hostile


def test_everything_of_a_release_is_on_the_page(tree: Element, document: Document) -> None:
    words = tree.all("body")[0].words()
    manifest = document.read_manifest()
    for section in (
        "Gates",
        "Latency",
        "Execution proof",
        "Best, median and worst frames",
        "Provenance",
        "Known anomalies",
    ):
        assert any(section in e.words() for e in tree.all("h2")), section
    for artifact in manifest.artifacts:
        for record in artifact.files:
            assert record.sha256 in words
    for golden in manifest.golden:
        assert all(record.sha256 in words for record in golden.files)
    for frame in document.frames.frames if document.frames else ():
        assert frame.sha256 in words
    assert manifest.digest in words
    assert document.manifest_sha256 in words
    assert "not signed" in words
    assert "not tested" in words  # a stratum that the frames do not have
    assert f"{manifest.provenance.network['macs']:,} multiply-accumulates" in words


def _every(root: Element) -> list[Element]:
    return [root] + [e for child in root.children for e in _every(child)]
