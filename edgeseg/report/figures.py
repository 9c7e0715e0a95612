"""Every figure of a page from its raw samples: a name for each, its value, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeseg.evidence import Latency, Parity, Stratum
from edgeseg.frontier.document import Frontier
from edgeseg.frontier.judging import judge
from edgeseg.gates import Judged
from edgeseg.parity import FrameDifference
from edgeseg.report.differences import changes
from edgeseg.report.document import Document, Measured
from edgeseg.report.judging import (
    gates_decide,
    judged_against_source,
    judged_at_conversion,
    judged_here,
    style_of,
    verdict_word,
)
from edgeseg.report.verdict import release, verdict_of
from edgeseg.types import Manifest

# Of a stratum: the attribute, its heading and how it is printed.
STRATUM_FIGURES = (
    ("dice_source", "Dice to the source", ".4f"),
    ("agreement", "Mask agreement", ".5f"),
    ("hd95_px", "HD95, px", ".2f"),
    ("area_difference", "Area difference", ".4f"),
    ("false_positive", "False positives", ".5f"),
    ("dice_drop", "Dice drop", ".4f"),
)
# Of a frame under its picture: the attribute, its name, its unit and how it is printed.
FRAME_FIGURES = (
    ("dice", "Dice to the reference mask", "", ".4f"),
    ("dice_source", "Dice to the source", "", ".4f"),
    ("agreement", "mask agreement", "", ".5f"),
    ("hd95_px", "HD95", "px", ".1f"),
    ("hc_difference_mm", "head circumference off by", "mm", ".2f"),
    ("sqnr_db", "SQNR", "dB", ".1f"),
)
_FRONTIER = (
    ("p50_ms", 1, ".3g"),
    ("size_mb", 1, ".3g"),
    ("dice", 100, ".2f"),
    ("hc_mae_mm", 1, ".2f"),
    ("worst_dice", 100, ".2f"),
)
LATENCIES = ("p50_ms", "p90_ms", "p99_ms")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and the format it is printed with, or a word such as a verdict."""

    value: float | str
    style: str = ""

    @property
    def text(self) -> str:
        """As it is printed; a zero has no sign."""
        text = format(self.value, self.style)
        return text.lstrip("+-") if not isinstance(self.value, str) and not float(text) else text


Named = Iterator[tuple[str, Figure]]


def figures(document: Document) -> dict[str, Figure]:
    """Every figure by its name, as in `openvino-int8.openvino/p50_ms`. What was not measured has none.

    Raises BundleError where the document's manifest is none.
    """
    manifest = document.read_manifest()
    found = dict(_all(document, manifest))
    found["release"] = Figure(release(document, manifest))
    return found


def _all(document: Document, manifest: Manifest) -> Named:
    for artifact in manifest.artifacts:
        yield f"{artifact.name}/size_mb", Figure(artifact.size_bytes / 1e6, ".2f")
        yield from _gates(f"{artifact.name}/conversion", judged_at_conversion(artifact, manifest))
        yield from _gates(f"{artifact.name}/source", judged_against_source(artifact, manifest))
        yield from _strata(f"{artifact.name}/conversion", artifact.parity)
        for baseline in artifact.baselines:
            where = f"{artifact.name}/baseline/{baseline.runtime}"
            yield from _optional(f"{where}/sqnr_db", baseline.sqnr_db, ".1f")
            yield from _optional(f"{where}/sqnr_db_min", baseline.sqnr_db_min, ".1f")
            yield f"{where}/agreement", Figure(baseline.agreement, ".5f")
            yield f"{where}/agreement_min", Figure(baseline.agreement_min, ".5f")
    for row in document.rows:
        yield from _row(row, document, manifest)
    for change in changes(document):
        yield f"{change.key}/old", Figure(change.old, change.style)
        yield f"{change.key}/new", Figure(change.new, change.style)
        yield f"{change.key}/change", Figure(change.change, change.change_style)
        yield f"{change.key}/word", Figure(change.word)
    if document.frontier is not None:
        yield from _frontier(document.frontier)


def _frontier(frontier: Frontier) -> Named:
    """Judged again from its samples."""
    for point in judge(frontier).rows:
        for name, scale, style in _FRONTIER:
            value = getattr(point, name)
            yield from _optional(f"frontier/{point.name}/{name}", None if value is None else scale * value, style)


def _row(row: Measured, document: Document, manifest: Manifest) -> Named:
    if row.run_ms:
        yield from _latency(f"{row.key}/run", row.run_ms)
        yield from _latency(f"{row.key}/total", row.total_ms)
        yield f"{row.key}/fps", Figure(Latency.of(np.array(row.run_ms) / 1e3).fps, ".0f")
    if not row.is_source:
        yield f"{row.key}/verdict", Figure(verdict_of(row, document, manifest).word)
    if not row.differences:
        return
    decide = gates_decide(row, document, manifest)
    yield from _gates(f"{row.key}/here", judged_here(row, document, manifest), decide)
    parity = row.parity(manifest.gates.small_share)
    yield from _strata(f"{row.key}/here", parity)
    yield f"{row.key}/here/lowest_agreement", Figure(min(d.agreement for d in row.differences), ".5f")
    if parity is not None:
        yield f"{row.key}/here/mean_dice_source", Figure(parity.dice_source, ".4f")
        yield f"{row.key}/here/mean_agreement", Figure(parity.agreement, ".5f")
        yield from _optional(f"{row.key}/here/mean_dice", parity.dice, ".4f")
        yield from _optional(f"{row.key}/here/sqnr_db", parity.sqnr_db, ".1f")
    for index in shown_frames(row).values():
        yield from _frame(f"{row.key}/frame/{index}", row.differences[index])


def shown_frames(row: Measured) -> dict[str, int]:
    """The index of the best, the median and the worst frame; empty where none was compared."""
    ranked = row.ranked
    if not ranked:
        return {}
    return {"best": ranked[-1], "median": ranked[len(ranked) // 2], "worst": ranked[0]}


def _latency(where: str, samples_ms: Iterable[float]) -> Named:
    latency = Latency.of(np.array(list(samples_ms)) / 1e3)
    for name in LATENCIES:
        yield f"{where}/{name}", Figure(getattr(latency, name), ".3f" if latency.p50_ms < 1 else ".2f")


def _gates(where: str, judged: Iterable[Judged], decide: bool = True) -> Named:
    for gate in judged:
        name = f"{where}/{gate.gate}"
        yield f"{name}/verdict", Figure(verdict_word(gate, decide))
        style = style_of(gate.gate)
        yield from _optional(name, gate.value, style)
        if gate.interval:
            yield f"{name}/low", Figure(gate.interval[0], style)
            yield f"{name}/high", Figure(gate.interval[1], style)


def _strata(where: str, parity: Parity | None) -> Named:
    for stratum in parity.strata if parity else ():
        yield from _stratum(f"{where}/strata/{stratum.name}", stratum)


def _stratum(where: str, stratum: Stratum) -> Named:
    yield f"{where}/frames", Figure(stratum.frames)
    for name, _, style in STRATUM_FIGURES:
        yield from _optional(f"{where}/{name}", getattr(stratum, name), style)


def _frame(where: str, difference: FrameDifference) -> Named:
    for name, _, _, style in FRAME_FIGURES:
        yield from _optional(f"{where}/{name}", getattr(difference, name), style)


def _optional(name: str, value: float | None, style: str) -> Named:
    if value is not None:
        yield name, Figure(value, style)
