"""Whether a board can run a bundle, found out before a byte of it goes there."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeseg.boards.checks_engines import LITERT_GLIBC
from edgeseg.boards.hil.bundles import Candidate, check_signed
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.facts import BoardFacts
from edgeseg.boards.hil.memory_plan import MemoryPlan, plan_memory
from edgeseg.errors import BoardError, BoardUnfit
from edgeseg.plugins import ENGINE_OF, MIN_RUNTIMES

_CLOCK_S = 300.0
_DISK_MARGIN = 4 << 20
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Fitness:
    """How a board is to run a bundle.

    Attributes:
        plan: which engines, and how many at once.
        left_out: engines that the bundle has artifacts for and that are not used, with the reason.
    """

    plan: MemoryPlan
    left_out: dict[str, str] = field(default_factory=dict)


def check_board(entry: BoardEntry, facts: BoardFacts, now_unix: float | None = None) -> None:
    """Raise BoardError where nothing can be measured on the board: its clock is wrong, or it is another one."""
    ahead = facts.time_unix - (time.time() if now_unix is None else now_unix)
    if abs(ahead) > _CLOCK_S:
        raise BoardError(
            f"{entry.name}: its clock is {_span(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}, expected at most "
            f"{_span(_CLOCK_S)}: signatures and records need the time, set it there (timedatectl set-ntp true)"
        )
    if entry.profile and facts.profile != entry.profile:
        raise BoardError(
            f"{entry.name} is recognised as {facts.profile} ({facts.description}), expected {entry.profile}: "
            "compare address and profile in the environment"
        )


def check_fitness(entry: BoardEntry, facts: BoardFacts, candidate: Candidate, runtimes: Sequence[str]) -> Fitness:
    """How the board is to run the bundle. Raises BoardUnfit with the reason where it cannot."""
    manifest = candidate.bundle.manifest
    if manifest.schema > facts.manifest_schema:
        raise BoardUnfit(
            f"{candidate.name} has schema {manifest.schema}, edgeseg {facts.edgeseg} on {entry.name} reads up to "
            f"{facts.manifest_schema}: upgrade edgeseg there"
        )
    check_signed(candidate, entry)
    _check_keys(entry, facts, candidate)
    engines, left_out = _engines(entry, facts, candidate, runtimes)
    _check_disk(entry, facts, candidate)
    plan = plan_memory(candidate.bundle, candidate.name, engines, facts.memory_bytes, entry.name)
    return Fitness(plan, left_out | plan.left_out)


def _check_keys(entry: BoardEntry, facts: BoardFacts, candidate: Candidate) -> None:
    if facts.trusted_keys is None or entry.trusted_keys or set(candidate.key_ids) & set(facts.trusted_keys):
        return
    signed = "is not signed" if not candidate.key_ids else f"is signed by {_short(candidate.key_ids)}"
    raise BoardUnfit(
        f"{candidate.name} {signed}, {entry.name} trusts {_short(facts.trusted_keys)} only: "
        "have it signed with that key (`edgeseg sign`)"
    )


def _engines(
    entry: BoardEntry, facts: BoardFacts, candidate: Candidate, runtimes: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The engines to use, and those left out. Raises BoardUnfit where one was asked for, or none is left."""
    wanted = sorted({ENGINE_OF[artifact.format] for artifact in candidate.bundle.artifacts})
    found: list[str] = []
    left_out: dict[str, str] = {}
    for engine in wanted:
        problem = _problem(engine, entry, facts, candidate)
        if runtimes and engine not in runtimes:
            continue
        if problem:
            left_out[engine] = problem
        else:
            found.append(engine)
    asked = [left_out[engine] for engine in runtimes if engine in left_out]
    if asked or not found:
        reasons = "; ".join(asked or left_out.values()) or f"it has nothing for {', '.join(runtimes)}"
        raise BoardUnfit(f"{candidate.name} cannot run on {entry.name}: {reasons}")
    return found, left_out


def _problem(engine: str, entry: BoardEntry, facts: BoardFacts, candidate: Candidate) -> str:
    version = facts.engines.get(engine)
    if version is None:
        return f"{engine} is not installed on {entry.name}"
    least = max((MIN_RUNTIMES[engine], candidate.bundle.manifest.min_runtimes.get(engine, "0")), key=_numbers)
    if _numbers(version) < _numbers(least):
        return f"{engine} is {version} on {entry.name}, expected {least} or later"
    old = facts.glibc and _numbers(facts.glibc) < LITERT_GLIBC
    if engine == "litert" and facts.board.get("architecture") == "aarch64" and old:
        needed = ".".join(map(str, LITERT_GLIBC))
        return f"litert needs glibc {needed} on aarch64, {entry.name} has {facts.glibc}"
    return ""


def _check_disk(entry: BoardEntry, facts: BoardFacts, candidate: Candidate) -> None:
    # What was brought and what is installed are there at once for a moment.
    need = 2 * candidate.size_bytes + _DISK_MARGIN
    if not facts.work_writable:
        raise BoardUnfit(
            f"the user of {entry.name} may not write to {entry.work} there: give it that folder, or choose another one"
        )
    if facts.work_free_bytes is not None and facts.work_free_bytes < need:
        raise BoardUnfit(
            f"{candidate.name} needs {need / _MIB:.1f} MiB in {entry.work} on {entry.name}, "
            f"{facts.work_free_bytes / _MIB:.1f} MiB are free: make room, or choose another work folder"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _short(ids: Sequence[str]) -> str:
    return ", ".join(key[:12] for key in ids)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"
