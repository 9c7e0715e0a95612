"""What a bundle did on a board, as a test asks for it: figures by the names of the limits, and all results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgeseg.boards.hil.environment import Limits
from edgeseg.boards.hil.held_board import Outcome
from edgeseg.boards.hil.steps import BENCH, SOAK, VERIFY, fastest, hottest


@dataclass(frozen=True, slots=True)
class ArtifactFigures:
    """One artifact on one engine, as the bench found it; as verify did where there was no bench. None: not measured.

    Attributes:
        format, precision, runtime, device: of the artifact, and where it ran.
        passed: its gates; None where nothing was said.
        reason: why it did not.
        p50_ms, p90_ms, p99_ms: of the engine alone.
        fps: frames a second.
        dice: 0 to 1, against the source's masks of the golden frames.
        memory_mb: 10^6 bytes, at most, of the process.
    """

    format: str
    precision: str
    runtime: str
    device: str
    passed: bool | None
    reason: str | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    fps: float | None
    dice: float | None
    memory_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What came of a bundle on a board. Figures are those that `Limits` are for, None where they were not measured.

    Attributes:
        board, bundle: names.
        status: "passed" or "failed".
        reason: why it failed: each limit that was not kept, with what was measured; "" where it passed.
        artifacts: all that were run.
        steps: each step's `status`, `reason` and `result` (the JSON of the command, docs/json.md).
        p99_ms, fps, dice, memory_mb: of the fastest artifact that passed, in the bench.
        temperature_c, soak_p999_ms, soak_missed, soak_drift_mib: of the soak.
    """

    board: str
    bundle: str
    status: str
    reason: str
    artifacts: tuple[ArtifactFigures, ...]
    steps: Mapping[str, Mapping[str, Any]]
    p99_ms: float | None = None
    fps: float | None = None
    dice: float | None = None
    memory_mb: float | None = None
    temperature_c: float | None = None
    soak_p999_ms: float | None = None
    soak_missed: float | None = None
    soak_drift_mib: float | None = None

    def figures(self) -> dict[str, float]:
        """All that was measured, by the names of the limits."""
        found = {name: getattr(self, name) for name in Limits.__struct_fields__}
        return {name: value for name, value in found.items() if value is not None}


def proof_of(outcome: Outcome, steps: Mapping[str, Mapping[str, Any]]) -> Proof:
    """Put together what the steps of a bundle found."""
    rows = _rows(steps, BENCH) or _rows(steps, VERIFY)
    artifacts = tuple(_artifact(row) for row in rows)
    best = fastest(_rows(steps, BENCH))
    bench = _artifact(best) if best else None
    shared = ("p99_ms", "fps", "dice", "memory_mb")
    return Proof(
        board=outcome.board,
        bundle=outcome.bundle,
        status=outcome.status,
        reason=outcome.reason,
        artifacts=artifacts,
        steps=steps,
        **{name: getattr(bench, name, None) for name in shared},
        **_of_soak(steps),
    )


def _rows(steps: Mapping[str, Mapping[str, Any]], step: str) -> list[dict[str, Any]]:
    return list((steps.get(step, {}).get("result") or {}).get("rows", ()))


def _artifact(row: dict[str, Any]) -> ArtifactFigures:
    values = {**row, "dice": row.get("dice_source"), "memory_mb": row.get("peak_memory_mb")}
    known: dict[str, Any] = {field.name: values.get(field.name) for field in fields(ArtifactFigures)}
    return ArtifactFigures(**known)


def _of_soak(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    result = steps.get(SOAK, {}).get("result")
    if not result:
        return {}
    measured = {limit["name"]: limit["measured"] for limit in result.get("limits", ())}
    missed = [measured[name] for name in ("missed deadlines", "dropped frames") if measured.get(name) is not None]
    return {
        "temperature_c": hottest(result),
        "soak_p999_ms": measured.get("p99.9 latency"),
        "soak_missed": max(missed, default=None),
        "soak_drift_mib": measured.get("memory drift"),
    }
