"""What the records do not prove, in plain words: for whoever signs for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.hil_report.comparison import ERROR, Board, Comparison, Result

T = TypeVar("T", bound=Hashable)
_TELLS = {"power_mw": "power", "temperature_c": "temperature", "clock_mhz": "clock"}
_LIMITS = {"p99_ms": "p99", "fps": "frames a second", "dice": "Dice", "memory_mb": "memory"}


def caveats(comparison: Comparison) -> Iterator[str]:
    """A sentence each: about boards first, then about what was measured, then about the records."""
    yield from _of_boards(comparison)
    yield from _of_results(comparison)
    yield from _of_records(comparison)


def _of_boards(comparison: Comparison) -> Iterator[str]:
    own = {board.label: [r for r in comparison.results if r.board == board.label] for board in comparison.boards}
    for labels, _ in _alike(comparison.boards, lambda board: board.facts is None):
        yield f"{labels} never answered: nothing is known of what is there."
    for labels, emulated in _alike(comparison.boards, lambda board: board.emulated):
        yield (
            f"Emulated, no hardware ({emulated}): {labels}. Masks and their accuracy carry over to a board "
            "of that processor and those engines; latency, memory and soak say nothing of any."
        )
    for labels, silent in _alike(comparison.boards, lambda board: _silent(own[board.label])):
        yield f"Not readable on {labels}, which is not 0: {silent}."
    for labels, _ in _alike(comparison.boards, lambda board: _unsoaked(own[board.label])):
        yield f"No soak was asked for on {labels}: nothing is known of drift or missed deadlines over time."


def _alike(boards: Sequence[Board], about: Callable[[Board], T]) -> Iterator[tuple[str, T]]:
    """Boards of which the same is to be said; those of which nothing is are left out."""
    found: dict[T, list[str]] = defaultdict(list)
    for board in boards:
        if said := about(board):
            found[said].append(board.label)
    for said, labels in found.items():
        yield _listed(labels), said


def _silent(results: Sequence[Result]) -> str:
    """What a board did not tell while it was measured."""
    measured = [r.telemetry for r in results if r.telemetry]
    told = {name for telemetry in measured for name in telemetry.spreads}
    silent = [name for key, name in _TELLS.items() if key not in told]
    if all(telemetry.throttled_share is None for telemetry in measured):
        silent.append("throttling")
    return _listed(silent) if measured and silent else ""


def _unsoaked(results: Sequence[Result]) -> bool:
    return any(not (result.measures or Measures()).soak_minutes for result in results if result.figures)


def _of_results(comparison: Comparison) -> Iterator[str]:
    open_ended = [r for r in comparison.results if r.figures and not _limited(r.limits or Limits())]
    if open_ended:
        yield (
            f"No limit on {_listed(list(_LIMITS.values()))} was asked for of {_listed(list(map(_name, open_ended)))}: "
            "to pass means there that it runs, that its masks are right, and that it kept the limits of its soak."
        )
    for result in comparison.results:
        if result.figures and not result.counts:
            ended = "ended by an error" if result.status == ERROR else "did not come to its end"
            yield f"{_name(result)} {ended}: its figures are shown, and count for nothing."
        for engine, reason in result.left_out.items():
            yield f"{_name(result)}: {engine} was left out, {reason}."
        for figures in result.figures:
            if figures.samples_agree is False:
                yield f"{_name(result)}: the percentiles of {figures.name} do not follow from its samples."
    pairs = len(comparison.boards) * len(comparison.bundles)
    if never := pairs - len(comparison.results):
        yield f"{never} of {pairs} pairs of a board and a bundle were never tried: the table of results says which."


def _limited(limits: Limits) -> bool:
    return any(getattr(limits, name) is not None for name in _LIMITS)


def _name(result: Result) -> str:
    return f"{result.bundle} on {result.board}"


def _of_records(comparison: Comparison) -> Iterator[str]:
    for record in comparison.records:
        if record.ended is None:
            yield f"The record of run {record.run} has no end: its runner was killed, or still runs."
        if record.torn:
            lines = "a line that is" if record.torn == 1 else f"{record.torn} lines that are"
            yield f"The record of run {record.run} has {lines} no event, and that nobody can read."
    unsigned = [bundle.label for bundle in comparison.bundles if bundle.key_ids == ()]
    if unsigned:
        yield f"Nobody signed {_listed(unsigned)}."
    signed = [bundle.label for bundle in comparison.bundles if bundle.key_ids]
    if signed:
        yield f"The key ids of {_listed(signed)} are as the bundles state them: this report checks no signature."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
