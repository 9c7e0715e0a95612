"""What the records do not prove, in plain words: for whoever signs for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.hil_report.comparison import Board, Comparison, Result

_TELLS = {"power_mw": "power", "temperature_c": "temperature", "clock_mhz": "clock"}
_LIMITS = {"p99_ms": "p99", "fps": "frames a second", "dice": "Dice", "memory_mb": "memory"}


def caveats(comparison: Comparison) -> Iterator[str]:
    """A sentence each: about boards first, then about what was measured, then about the records."""
    for board in comparison.boards:
        yield from _of_board(board, [r for r in comparison.results if r.board == board.label])
    for result in comparison.results:
        yield from _of_result(result)
    yield from _never_tried(comparison)
    yield from _of_records(comparison)


def _of_board(board: Board, results: Sequence[Result]) -> Iterator[str]:
    if board.facts is None:
        yield f"{board.label} never answered: nothing is known of it."
        return
    if board.emulated:
        yield (
            f"{board.label} is emulated (limits by {board.emulated}): it is no hardware, and its latency, memory and "
            "soak say nothing of any board; only results of networks carry over."
        )
    measured = [r.telemetry for r in results if r.telemetry]
    told = {name for telemetry in measured for name in telemetry.spreads}
    silent = [name for key, name in _TELLS.items() if key not in told]
    if all(telemetry.throttled_share is None for telemetry in measured):
        silent.append("throttling")
    if measured and silent:
        yield f"{board.label} does not tell its {_listed(silent)}: not readable there, which is not 0."
    if any(not (r.measures or Measures()).soak_minutes for r in results if r.figures):
        yield f"On {board.label} no soak was asked for: nothing is known of drift or missed deadlines over time."


def _of_result(result: Result) -> Iterator[str]:
    what = f"{result.bundle} on {result.board}"
    limits = result.limits or Limits()
    open_limits = [name for key, name in _LIMITS.items() if getattr(limits, key) is None]
    if result.figures and len(open_limits) == len(_LIMITS):
        yield f"{what}: no limit was asked for, so that a pass says only that it runs and gives the right masks."
    for engine, reason in result.left_out.items():
        yield f"{what}: {engine} was left out, {reason}."
    for figures in result.figures:
        if figures.samples_agree is False:
            yield f"{what}: the percentiles of {figures.name} do not follow from its samples in the record."
    if result.figures and not any(step.step == "bench" for step in result.steps):
        yield f"{what}: no bench was done, there are no latencies."


def _never_tried(comparison: Comparison) -> Iterator[str]:
    for board in comparison.boards:
        missing = [b.label for b in comparison.bundles if comparison.result(board.label, b.label) is None]
        if missing:
            yield f"{board.label} was never tried with {_listed(missing)}."


def _of_records(comparison: Comparison) -> Iterator[str]:
    for record in comparison.records:
        if record.ended is None:
            yield f"The record of run {record.run} has no end: its runner was killed, or still runs."
        if record.torn:
            lines = "a line that is" if record.torn == 1 else f"{record.torn} lines that are"
            yield f"The record of run {record.run} has {lines} no event, and that nobody can read."
    unsigned = [bundle.label for bundle in comparison.bundles if not bundle.key_ids]
    if unsigned:
        yield f"Nobody signed {_listed(unsigned)}."
    signed = [bundle.label for bundle in comparison.bundles if bundle.key_ids]
    if signed:
        yield f"The key ids of {_listed(signed)} are as the bundles state them: this report checks no signature."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
