"""The rows of `bench --json` and `verify --json`, and how they are printed and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeseg.commands.json_file import write_json
from edgeseg.commands.table import Cell, print_table
from edgeseg.evidence import Execution, Parity, Stratum
from edgeseg.gates import Judged
from edgeseg.metrics import SQNR_LIMIT_DB
from edgeseg.types import Precision


@dataclass(slots=True)
class Row:
    """One artifact on one runtime and device. What was not measured is None, never 0.

    Beside the fields of the contract: `total_p50_ms` is frame in to mask out; `first_ms` the first run; `dice_ci` and
    `hc_mae_ci` are 95 % intervals, bootstrapped by exam; `dice` is against the reference masks, `dice_source` against
    the source's masks (fractions, not percent). From `dice_drop` to `strata` the fields are those of `Parity`; `gates`
    has every gate with its value, `failed` those that failed as sentences, of which `reason` is the first.
    """

    format: str
    precision: str
    runtime: str
    device: str
    threads: int | None
    frames: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    fps: float | None = None
    total_p50_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    size_mb: float | None = None
    peak_memory_mb: float | None = None
    dice: float | None = None
    dice_ci: tuple[float, float] | None = None
    dice_source: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    logit_error: float | None = None
    hc_mae_mm: float | None = None
    hc_mae_ci: tuple[float, float] | None = None
    dice_drop: float | None = None
    dice_drop_ci: tuple[float, float] | None = None
    hc_increase_mm: float | None = None
    hc_increase_ci: tuple[float, float] | None = None
    hc_difference_mm: float | None = None
    hd95_px: float | None = None
    hd95_mm: float | None = None
    hd95_share: float | None = None
    hd95_ci: tuple[float, float] | None = None
    one_empty: int | None = None
    area_difference: float | None = None
    area_difference_mm2: float | None = None
    area_difference_ci: tuple[float, float] | None = None
    shift_px: float | None = None
    shift_share: float | None = None
    worst_dice: float | None = None
    worst_dice_source: float | None = None
    strata: tuple[Stratum, ...] | None = None
    gates: tuple[Judged, ...] | None = None
    failed: tuple[str, ...] | None = None
    executed: Execution | None = None
    passed: bool | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """As in `openvino-int8`, or the runtime's name for the source itself."""
        return self.runtime if self.format == "torch" else f"{self.format}-{self.precision}"


SHARED_WITH_PARITY = tuple({f.name for f in fields(Row)} & {f.name for f in fields(Parity)} - {"runtime"})


@dataclass(slots=True)
class Report:
    """What `--json` writes; `telemetry` is of the board while the latency was measured."""

    bundle: str
    board: str
    rows: list[Row] = field(default_factory=list)
    reference: str = ""
    data: str | None = None
    telemetry: dict[str, Any] | None = None
    schema: int = 1

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(path, self)


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """A table of the columns in which something was measured, the fastest of them in bold on a terminal."""
    columns: dict[str, Sequence[Cell]] = {
        "artifact": [r.name for r in rows],
        "runtime": [r.runtime for r in rows],
        "device": [r.device for r in rows],
        "thr": [r.threads for r in rows],
        "p50 ms": [_number(r.p50_ms, ".2f") for r in rows],
        "p90 ms": [_number(r.p90_ms, ".2f") for r in rows],
        "p99 ms": [_number(r.p99_ms, ".2f") for r in rows],
        "fps": [_number(r.fps, ".0f") for r in rows],
        "with frame ms": [_number(r.total_p50_ms, ".2f") for r in rows],
        "load ms": [_number(r.load_ms, ".0f") for r in rows],
        "MB": [_number(r.size_mb, ".1f") for r in rows],
        "peak MB": [_number(r.peak_memory_mb, ".0f") for r in rows],
        "Dice": [_number(None if r.dice is None else 100 * r.dice, ".2f") for r in rows],
        "HC mm": [_number(r.hc_mae_mm, ".2f") for r in rows],
        "agreement": [_number(r.agreement, ".5f") for r in rows],
        "SQNR dB": [_number(None if r.sqnr_db == SQNR_LIMIT_DB else r.sqnr_db, ".1f") for r in rows],
        "HD95 px": [_number(r.hd95_px, ".2f") for r in rows],
        "area %": [_number(None if r.area_difference is None else 100 * r.area_difference, ".2f") for r in rows],
        "int8 layers": [_layers(r.executed) for r in rows],
        "verdict": [_verdict(r) for r in rows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    timed = [r.p50_ms for r in rows if r.p50_ms is not None and r.format != "torch"]
    best = min(timed, default=None)
    styles = [
        "red" if r.passed is False else "bold green" if best is not None and r.p50_ms == best else None for r in rows
    ]
    print_table(title, list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)], styles=styles)


def fastest(rows: Sequence[Row]) -> Row | None:
    """The artifact with the smallest median among those that did not fail."""
    timed = [r for r in rows if r.p50_ms is not None and r.format != "torch" and r.passed is not False]
    return min(timed, key=lambda r: r.p50_ms or 0.0, default=None)


def ratios(rows: Sequence[Row]) -> list[str]:
    """Lines that compare medians: each int8 with its own engine's fp32, the fastest artifact with the torch source."""
    lines = []
    for row in rows:
        same = (r for r in rows if (r.runtime, r.device) == (row.runtime, row.device))
        base = next((r for r in same if r.precision == Precision.FP32), None)
        if row.precision == Precision.INT8 and base and base.p50_ms and row.p50_ms:
            lines.append(f"{row.name} takes {row.p50_ms / base.p50_ms:.2f} of the time of {base.name} on {row.runtime}")
    best = fastest(rows)
    for row in rows:
        if best and row.format == "torch" and row.p50_ms and best.p50_ms:
            ratio = row.p50_ms / best.p50_ms
            lines.append(f"{best.name} on {best.runtime} is {ratio:.2f} times as fast as {row.runtime}")
    return lines


def intervals(rows: Sequence[Row]) -> list[str]:
    """Accuracy with 95 % intervals by exam, of the source where it was measured and of the fastest artifact."""
    lines = []
    for row in [*(r for r in rows if r.runtime == "torch"), *filter(None, [fastest(rows)])]:
        if row.dice is None or row.dice_ci is None:
            continue
        line = f"{row.name}: Dice {100 * row.dice:.2f} [{100 * row.dice_ci[0]:.2f}, {100 * row.dice_ci[1]:.2f}]"
        if row.hc_mae_mm is not None and row.hc_mae_ci is not None:
            low, high = row.hc_mae_ci
            line += f", head circumference error {row.hc_mae_mm:.2f} [{low:.2f}, {high:.2f}] mm"
        lines.append(f"{line} (95 % intervals by exam)")
    return lines


def untested(rows: Sequence[Row]) -> str | None:
    """One line that says which strata the frames did not have; None where they had all of them."""
    said = dict.fromkeys(s.missing for row in rows for s in row.strata or () if s.missing)
    return "; ".join(said) or None


def findings(rows: Sequence[Row]) -> list[str]:
    """What a table has no room for: all failed gates where there are several, and masks that came or went."""
    lines = [f"{r.name} on {r.runtime} fails: {'; '.join(r.failed)}" for r in rows if r.failed and len(r.failed) > 1]
    for row in rows:
        if row.one_empty:
            lines.append(
                f"{row.name} on {row.runtime}: {row.one_empty} of {row.frames} frames have foreground in one of the "
                "two masks only; their HD95 counts as the frame's diagonal"
            )
    return lines


def _number(value: float | None, style: str) -> str | None:
    return None if value is None else f"{value:{style}}"


def _layers(executed: Execution | None) -> str | None:
    return None if executed is None else f"{executed.int8_layers}/{executed.layers}"


def _verdict(row: Row) -> str | None:
    if row.passed is None:
        return row.reason
    return "passed" if row.passed else f"FAILED: {row.reason}"
