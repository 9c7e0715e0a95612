"""What the page's tables say, in words; how they look is the template's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.boards.hil.environment import Limits
from edgeseg.boards.hil.steps import MEASURED
from edgeseg.hil_report.comparison import (
    ERROR,
    FAILED,
    PASSED,
    REFUSED,
    UNFINISHED,
    Board,
    Comparison,
    Figures,
    Result,
)
from edgeseg.hil_report.events import Soak

WORDS = {
    PASSED: ("\u2713", "passed", "good"),
    FAILED: ("\u2717", "FAILED", "bad"),
    REFUSED: ("\u2298", "refused", "bad"),
    ERROR: ("!", "ERROR", "bad"),
    UNFINISHED: ("\u2026", "not finished", "bad"),
}
STEPS = ("deploy", *MEASURED)
MOST, LEAST = "at most", "at least"
LIMITS = (
    "p99, ms",
    "Frames/s",
    "Dice to the source",
    "Memory, MB",
    "Soak: p99.9, ms",
    "Soak: missed",
    "Soak: growth, MiB",
    "Soak: hottest, \N{DEGREE SIGN}C",
)
INCIDENTS = {
    "lost": "connection lost",
    "rebooted": "rebooted",
    "quarantine": "left alone for the rest of the run",
    "machine changed": "another machine answered",
    "board error": "nothing more could be run",
}
_FEW = 4
GLOSSARY = (
    ("Passed", "Every step was done and every limit that was asked for was kept."),
    ("FAILED", "A step was done and its result is not good enough: a limit or a gate, named in the reason."),
    ("Refused", "The board cannot run the bundle, and that was found out before anything went there."),
    ("ERROR", "The board was lost, full, changed in the middle, or the harness could not go on: nothing is proven."),
    ("Not finished", "The record ends before the bundle does: its runner was killed, or still runs."),
    (
        "Fastest",
        "Of what passed, the artifact with the smallest median: what a device would run. Limits hold for it.",
    ),
    ("p50, p99", "Half, and 99 %, of the timed runs took at most this long: the engine alone, in the bench."),
    ("Slower by", "p50 over that of the fastest board for the same artifact, by hash, on the same engine."),
    ("Dice to the source", "Overlap with the masks of the trained model on the golden frames; 1 is the same mask."),
    ("Mask agreement", "Share of pixels that have the same class as the source gave them; 1 is all."),
    ("SQNR", "Signal to quantization noise ratio of the network's outputs, in dB."),
    (
        "Soak",
        "The fastest artifact on a stream of frames: latency from frame to result, deadlines, memory.",
    ),
    ("Overhead", "The time that a bundle took on a board beyond verify, warm-up, bench and soak, which are its work."),
    ("Emulated", "A board that is a part of a computer with limits, or another processor in software: no hardware."),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """Figures of an artifact on an engine of a board, and how much slower it is there than on the fastest board."""

    result: Result
    figures: Figures
    slower: float | None


def compared(comparison: Comparison, bundle: str) -> dict[str, list[Compared]]:
    """All figures of a bundle by artifact and engine: that of one board beside the same of the others."""
    groups: dict[str, list[tuple[Result, Figures]]] = {}
    for result in comparison.of_bundle(bundle):
        for figures in result.figures:
            groups.setdefault(figures.name, []).append((result, figures))
    return {name: [Compared(r, f, _slower(f, r.counts, group)) for r, f in group] for name, group in groups.items()}


def _slower(figures: Figures, counts: bool, group: Sequence[tuple[Result, Figures]]) -> float | None:
    times = [other.p50_ms for result, other in group if result.counts and other.p50_ms is not None]
    return None if len(times) < 2 or not counts or figures.p50_ms is None else figures.p50_ms / min(times)


@dataclass(frozen=True, slots=True)
class Held:
    """A limit and what was measured; None where there is none, or nothing was.

    Attributes:
        bound: "at most" or "at least".
        counts: whether the result does.
    """

    measured: float | None
    limit: float | None
    bound: str
    counts: bool

    @property
    def kept(self) -> bool | None:
        """Whether what was measured is within the limit; None where there is nothing to compare."""
        if self.measured is None or self.limit is None or not self.counts:
            return None
        return self.measured <= self.limit if self.bound == MOST else self.measured >= self.limit


def held(result: Result) -> list[Held]:
    """The limits of a board beside the figures that they hold for, in the order of LIMITS."""
    limits, fastest, soak = result.limits or Limits(), result.judged, result.soak
    hottest = soak_sums(soak).hottest_c if soak else None
    asked = (
        ("p99.9 latency", limits.soak_p999_ms),
        ("missed deadlines", limits.soak_missed),
        ("memory drift", limits.soak_drift_mib),
    )
    figures: list[tuple[float | None, float | None, str]] = [
        (fastest.p99_ms if fastest else None, limits.p99_ms, MOST),
        (fastest.fps if fastest else None, limits.fps, LEAST),
        (fastest.dice_source if fastest else None, limits.dice, LEAST),
        (fastest.peak_memory_mb if fastest else None, limits.memory_mb, MOST),
        *(_soaked(soak, name, limit) for name, limit in asked),
        (hottest, limits.temperature_c, MOST),
    ]
    return [Held(*figure, result.counts) for figure in figures]


def _soaked(soak: Soak | None, name: str, limit: float | None) -> tuple[float | None, float | None, str]:
    """A limit as the soak itself had it, which has defaults where the run asked for nothing."""
    own = next((own for own in soak.limits if own.name == name), None) if soak else None
    return (own.measured, own.asked, MOST) if own else (None, limit, MOST)


@dataclass(frozen=True, slots=True)
class SoakSums:
    """Of the windows of a soak after its warm-up; None where none of them tells."""

    minutes: float | None = None
    missed: int | None = None
    dropped: int | None = None
    hottest_c: float | None = None


def soak_sums(soak: Soak) -> SoakSums:
    """Add the windows of a soak up."""
    windows = [window for window in soak.windows if window.index]
    seconds = [window.seconds for window in windows if window.seconds is not None]
    missed = [window.missed for window in windows if window.missed is not None]
    dropped = [window.dropped + (window.skipped or 0) for window in windows if window.dropped is not None]
    hottest = [window.temperature_c for window in soak.windows if window.temperature_c is not None]
    return SoakSums(
        minutes=sum(seconds) / 60 if seconds else None,
        missed=sum(missed) if missed else None,
        dropped=sum(dropped) if dropped else None,
        hottest_c=max(hottest, default=None),
    )


def headline(comparison: Comparison) -> str:
    """As in "5 of 8 passed, 1 failed, 2 refused: 2 bundles on 4 boards"."""
    count = {status: sum(r.status == status for r in comparison.results) for status in WORDS}
    others = [f"{number} {WORDS[s][1].lower()}" for s, number in count.items() if number and s != PASSED]
    parts = ", ".join([f"{count[PASSED]} of {len(comparison.results)} passed", *others])
    return f"{parts}: {_count(len(comparison.bundles), 'bundle')} on {_count(len(comparison.boards), 'board')}"


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What the page is of."""
    first, last = (f(r.at for r in comparison.results) for f in (min, max))
    versions = sorted({record.edgeseg for record in comparison.records if record.edgeseg})
    emulated = sum(bool(board.emulated) for board in comparison.boards)
    return [
        ("Runs", _runs([record.run for record in comparison.records])),
        ("Measured", f"{when(first)} to {when(last)}" if first != last else when(first)),
        ("Runners", f"edgeseg {', '.join(versions)}" if versions else "not recorded"),
        (
            "Boards",
            f"{len(comparison.boards)}, {emulated} of them emulated" if emulated else str(len(comparison.boards)),
        ),
        ("This page", f"{when(comparison.created)}, edgeseg {comparison.edgeseg}"),
    ]


def fingerprint(board: Board) -> list[tuple[str, str]]:
    """What a board said of itself; only what it told."""
    told = board.facts
    if told is None:
        return [("Machine", "it never answered"), ("Reached by", _joined(board.transport, board.where))]
    found, quota = told.board, told.board.cpu_quota
    pairs = (
        ("Machine", told.description),
        ("Model", found.model),
        ("Profile", found.profile),
        ("Kind", f"emulated: {board.emulated}" if board.emulated else "not marked as emulated"),
        ("Processor", found.cpu_model),
        ("Cores", _joined(found.cores, None if quota is None else f"of which {quota:g} at most by control group")),
        ("Memory", None if found.memory_bytes is None else f"{found.memory_bytes / 2**20:,.0f} MiB"),
        ("Accelerators", ", ".join(accelerator.name for accelerator in found.accelerators)),
        ("System", found.os),
        ("Kernel", found.kernel),
        ("JetPack", _joined(found.jetpack, found.l4t and f"L4T {found.l4t}")),
        ("Container", found.container),
        ("Power mode", found.power_mode or "not readable"),
        ("Governor", told.reading.governor or "not readable"),
        ("glibc", told.glibc),
        ("Engines", ", ".join(f"{name} {version}" for name, version in sorted(told.engines.items())) or "none"),
        ("edgeseg there", told.edgeseg),
        ("Machine hash", board.machine),
        ("Reached by", _joined(board.transport, board.where)),
        ("Signatures", _signatures(told.trusted_keys)),
        ("Seen", when(board.seen)),
    )
    return [(name, str(text)) for name, text in pairs if text not in (None, "")]


def earlier(comparison: Comparison, bundle: str) -> list[tuple[Result, str]]:
    """Earlier results of a bundle, board by board, each with what was not as it is in the newest."""
    found = []
    for newest in comparison.of_bundle(bundle):
        old = [r for r in comparison.history if (r.board, r.bundle) == (newest.board, bundle)]
        found += [(result, _differences(newest, result)) for result in old]
    return found


def _differences(newest: Result, old: Result) -> str:
    """What was not as it is in the newest run, as in "kernel 5.15 (now 6.1)"."""
    names = [name for name in {**old.conditions, **newest.conditions} if old.conditions and newest.conditions]
    pairs = [(name, old.conditions.get(name, "none"), newest.conditions.get(name, "none")) for name in names]
    return ", ".join(f"{name} {then} (now {now})" for name, then, now in pairs if then != now)


def when(at: str) -> str:
    """As in "2026-01-31 12:00:00 UTC"."""
    return f"{at[:19].replace('T', ' ')} UTC" if at else "not recorded"


def _signatures(keys: Sequence[str] | None) -> str:
    if keys is None:
        return "any bundle is accepted there"
    return f"only bundles signed by {', '.join(key[:12] for key in keys) or 'nobody'}"


def _joined(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _runs(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= _FEW else f"{len(ids)}, from {ids[0]} to {ids[-1]}"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
