"""The page of a document: one HTML file that needs nothing else. Needs jinja2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup

from edgeseg.report import differences, sections
from edgeseg.report.chain import chain
from edgeseg.report.document import Document
from edgeseg.report.drawing import Scale, axis, distribution
from edgeseg.report.embedding import embed
from edgeseg.report.figures import FRAME_FIGURES, STRATUM_FIGURES, Figure, figures
from edgeseg.report.glossary import GLOSSARY
from edgeseg.report.outlines import Overlay, Picture
from edgeseg.report.rendering import render
from edgeseg.sbom.lineage import gaps
from edgeseg.types import Manifest

_NONE = Markup('<span class="none">{}</span>')


@dataclass(frozen=True, slots=True)
class _Printer:
    """Prints figures by their names, each with its full value for whoever computes it again."""

    figures: Mapping[str, Figure]

    def figure(self, key: str, unit: str = "", otherwise: str = "not measured") -> Markup:
        """A figure with its unit, or the words for its absence."""
        found = self.figures.get(key)
        if found is None:
            return _NONE.format(otherwise)
        shown = Markup('<data data-figure="{}" value="{}">{}</data>').format(key, found.value, found.text)
        return shown + (Markup("&nbsp;") + unit if unit else "")

    def interval(self, key: str) -> Markup:
        """As in `0.998 to 0.999`."""
        if f"{key}/low" not in self.figures:
            return _NONE.format("none")
        return self.figure(f"{key}/low") + Markup(" to ") + self.figure(f"{key}/high")

    def verdict(self, key: str) -> Markup:
        """A word, coloured too."""
        found = self.figures.get(f"{key}/verdict")
        if found is None:
            return _NONE.format("not measured")
        kind = {"passed": "good", "FAILED": "bad"}.get(str(found.value), "none")
        return Markup('<span class="{}">{}</span>').format(kind, self.figure(f"{key}/verdict"))

    def has(self, key: str) -> bool:
        """Whether there is such a figure."""
        return key in self.figures


def page(document: Document, pictures: Sequence[Picture] = (), overlays: Sequence[Overlay] = ()) -> str:
    """The page of a document.

    Args:
        document: what was measured; it is embedded.
        pictures: the frames that overlays show.
        overlays: outlines on them.

    Raises:
        BundleError: the manifest of the document, or of the one it is compared with, is none.
    """
    manifest = document.read_manifest()
    printer = _Printer(figures(document))
    return render(
        files("edgeseg.report"),
        title=f"{manifest.name}: edgeseg release report",
        made_by=document.edgeseg,
        contents=_contents(document, overlays),
        document=document,
        manifest=manifest,
        embedded=Markup(embed(document)),
        fig=printer.figure,
        interval=printer.interval,
        verdict=printer.verdict,
        has=printer.has,
        facts=sections.facts(document, manifest),
        reasons=sections.reasons(document, manifest),
        gate_tables=sections.gate_tables(document, manifest),
        untested=sections.untested(document, manifest),
        executions=sections.executions(document, manifest),
        changes=differences.changes(document),
        change_facts=differences.facts(document),
        thresholds=(100 * differences.OF_LIMIT, 100 * differences.OF_LATENCY, 100 * differences.OF_SIZE),
        chain=chain(document, manifest),
        gaps=gaps(manifest),
        hashes=_hashes(document, manifest),
        strata_columns=STRATUM_FIGURES,
        frame_figures=FRAME_FIGURES,
        glossary=GLOSSARY,
        pictures={p.id: p for p in pictures},
        overlays={row.key: [o for o in overlays if o.row == row.key] for row in document.artifacts},
        **_drawings(document),
        **_frontier(document),
    )


def _contents(document: Document, overlays: Sequence[Overlay]) -> list[tuple[str, str]]:
    sections_there = (
        ("difference", "Difference from the previous release", document.previous is not None),
        ("gates", "Gates", True),
        ("latency", "Latency", any(row.run_ms for row in document.rows)),
        ("execution", "Execution proof", bool(document.rows)),
        ("frames", "Best, median and worst frames", bool(overlays)),
        ("frontier", "Frontier", document.frontier is not None),
        ("provenance", "Provenance", True),
        ("hashes", "Files and frames by hash", True),
        ("anomalies", "Known anomalies of the engines", bool(document.anomalies)),
        ("words", "What the words mean", True),
    )
    return [(name, title) for name, title, there in sections_there if there]


def _drawings(document: Document) -> dict[str, object]:
    scale = Scale.of([sample for row in document.rows for sample in row.run_ms])
    if scale is None:
        return {"axis": "", "distributions": {}}
    timed = [row for row in document.rows if row.run_ms]
    drawn = {row.key: Markup(distribution(f"{row.artifact} on {row.runtime}", row.run_ms, scale)) for row in timed}
    return {"axis": Markup(axis(scale)), "distributions": drawn}


def _frontier(document: Document) -> dict[str, object]:
    """The frontier's own picture, which takes the colours of this page; matplotlib is not imported without one."""
    if document.frontier is None:
        return {"frontier_svg": "", "frontier_points": (), "frontier_headline": ""}
    from edgeseg.frontier import columns
    from edgeseg.frontier.page import inline
    from edgeseg.frontier.plot import draw

    points = [p for p in document.frontier.by_latency if p.state == "measured"]
    best = [p for p in points if p.dominated is False]
    headline = columns.headline(document.frontier)
    description = (
        f"Accuracy against latency and size of {len(points)} points. {headline}. The table below has the figures."
    )
    return {
        "frontier_svg": Markup(inline(draw(document.frontier).svg, description)),
        "frontier_points": best,
        "frontier_headline": headline[0].upper() + headline[1:],
    }


def _hashes(document: Document, manifest: Manifest) -> list[tuple[str, int | None, str]]:
    """Every file of the bundle: path, bytes and SHA-256; the manifest first."""
    rows: list[tuple[str, int | None, str]] = [
        ("manifest.json", None, document.manifest_sha256 or "not read from a file")
    ]
    records = [r for a in manifest.artifacts for r in a.files] + [r for g in manifest.golden for r in g.files]
    return rows + [(r.path.as_posix(), r.size_bytes, r.sha256) for r in records]
