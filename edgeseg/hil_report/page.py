"""The page of a comparison: one HTML file that needs nothing else. Needs jinja2."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup

from edgeseg.hil_report import sections
from edgeseg.hil_report.comparison import Comparison, Result
from edgeseg.hil_report.events import Spread, Telemetry
from edgeseg.hil_report.plots import bundle_plot, history_plot
from edgeseg.report.drawing import Scale, axis, distribution
from edgeseg.report.rendering import render

_NONE = Markup('<span class="none">{}</span>')


def page(comparison: Comparison) -> str:
    """The page; everything that is from a record is escaped."""
    return render(
        files("edgeseg.hil_report"),
        title="edgeseg: boards and bundles",
        made_by=comparison.edgeseg,
        contents=_contents(comparison),
        comparison=comparison,
        headline=sections.headline(comparison),
        facts=sections.facts(comparison),
        fingerprint=sections.fingerprint,
        compared={b.label: sections.compared(comparison, b.label) for b in comparison.bundles},
        plots={b.label: bundle_plot(comparison, b.label) for b in comparison.bundles},
        drawings={b.label: _drawings(comparison, b.label) for b in comparison.bundles},
        earlier={b.label: sections.earlier(comparison, b.label) for b in comparison.bundles},
        histories={b.label: history_plot(comparison, b.label) for b in comparison.bundles},
        glossary=sections.GLOSSARY,
        digits=digits,
        fixed=fixed,
        soak_sums=sections.soak_sums,
        limit_names=sections.LIMITS,
        held=sections.held,
        step_of=_step,
        step_names=sections.STEPS,
        seconds_of=lambda result: {step.step: step.seconds for step in result.steps},
        incident_words=sections.INCIDENTS,
        status=status,
        spread=spread,
        when=sections.when,
        emulated={board.label: bool(board.emulated) for board in comparison.boards},
    )


def digits(value: float | None, unit: str = "", otherwise: str = "not measured", digits: int = 3) -> Markup:
    """A number with so many significant digits, its full value for programs; or the words for its absence."""
    if value is None:
        return _NONE.format(otherwise)
    if isinstance(value, int):
        return Markup('<data value="{}">{:,}</data>{}').format(value, value, Markup("&nbsp;") + unit if unit else "")
    size = abs(value)
    whole = value == 0 or size >= 10 ** (digits - 1)
    text = f"{value:.0f}" if whole else f"{value:#.{digits}g}" if size >= 1e-3 else f"{value:.2g}"
    return Markup('<data value="{}">{}</data>{}').format(value, text, Markup("&nbsp;") + unit if unit else "")


def fixed(value: float | None, decimals: int) -> Markup:
    """A number with so many decimals; or that it was not measured."""
    if value is None:
        return _NONE.format("not measured")
    return Markup('<data value="{}">{}</data>').format(value, f"{value:.{decimals}f}")


def status(word: str) -> Markup:
    """A sign, a word and a colour for what came of a bundle or a step."""
    sign, name, kind = sections.WORDS.get(word, ("", word, "none"))
    return Markup('<span class="status {}"><span aria-hidden="true">{}</span> {}</span>').format(kind, sign, name)


def spread(telemetry: Telemetry | None, name: str, factor: float = 1.0) -> Markup:
    """As in "41.0 to 55.2", or that the board does not tell; the two ends are one where they print alike."""
    if telemetry is None:
        return _NONE.format("not measured")
    found: Spread | None = telemetry.spreads.get(name)
    if found is None:
        return _NONE.format("not readable")
    low, high = digits(found.least * factor), digits(found.most * factor)
    return low if found.least == found.most else low + Markup(" to ") + high


def _step(result: Result, name: str) -> Markup:
    """What came of a step, with the reason where it did not pass."""
    found = next((step for step in result.steps if step.step == name), None)
    if found is None:
        return _NONE.format("not done")
    return status(found.status) + (Markup(": {}").format(found.reason) if found.reason else Markup(""))


def _contents(comparison: Comparison) -> Sequence[tuple[str, str]]:
    there = (
        ("results", "Results", True),
        ("unproven", "What is not proven", bool(comparison.caveats)),
        *((f"bundle-{n}", bundle.label, True) for n, bundle in enumerate(comparison.bundles, 1)),
        ("boards", "Boards", True),
        ("incidents", "Lost, rebooted, left alone", True),
        ("overhead", "Time and overhead", True),
        ("history", "Earlier runs", bool(comparison.history)),
        ("hashes", "Artifacts by hash", True),
        ("records", "Records", True),
        ("words", "What the words mean", True),
    )
    return [(name, heading) for name, heading, is_there in there if is_there]


def _drawings(comparison: Comparison, bundle: str) -> dict[str, Markup]:
    """Distributions of a bundle by board and figures' name, on one axis, which is there by the name "axis"."""
    timed = [(r.board, f) for r in comparison.of_bundle(bundle) for f in r.figures if f.samples_ms]
    scale = Scale.of([sample for _, figures in timed for sample in figures.samples_ms])
    if scale is None:
        return {"axis": Markup("")}
    drawn = {
        f"{board} {f.name}": Markup(distribution(f"{f.name} of {board}", f.samples_ms, scale)) for board, f in timed
    }
    return {"axis": Markup(axis(scale)), **drawn}
