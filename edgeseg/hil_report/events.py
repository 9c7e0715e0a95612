"""What a report takes from the events of a station record, each value checked: a record is somebody's text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.errors import BadInput

T = TypeVar("T")
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Executed(msgspec.Struct, frozen=True):
    """What really ran: as of `edgeseg bench --json`."""

    provider: str
    precision: str
    int8_layers: int = 0
    layers: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of verify or bench: an artifact on an engine. See docs/json.md; None is not measured."""

    format: str
    precision: str
    runtime: str
    device: str = ""
    threads: int | None = None
    frames: int | None = None
    p50_ms: Positive | None = None
    p90_ms: Positive | None = None
    p99_ms: Positive | None = None
    fps: float | None = None
    total_p50_ms: float | None = None
    load_ms: float | None = None
    size_mb: float | None = None
    peak_memory_mb: float | None = None
    dice: float | None = None
    dice_source: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    executed: Executed | None = None
    passed: bool | None = None
    reason: str | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Every single time of one artifact in the bench."""

    format: str
    precision: str
    runtime: str
    device: str = ""
    infer_ms: tuple[Positive, ...] = ()


class Spread(msgspec.Struct, frozen=True):
    """Least, mean and most of the `count` readings that had the figure."""

    least: float
    mean: float
    most: float
    count: int


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """Of the board while the bench ran; what it does not tell is not in `spreads`."""

    samples: int
    seconds: float
    spreads: dict[str, Spread] = {}
    throttled_share: float | None = None
    throttled_by: dict[str, int] = {}
    governors: tuple[str, ...] = ()


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The result of verify or bench."""

    rows: tuple[Row, ...] = ()
    reference: str = ""
    telemetry: Telemetry | None = None


class SoakTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Of all results of a soak after its warm-up."""

    results: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    max_ms: float | None = None


class SoakWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a soak; the one of index 0 is the warm-up."""

    index: int = 0
    seconds: float | None = None
    missed: int | None = None
    dropped: int | None = None
    skipped: int | None = None
    temperature_c: float | None = None
    throttled: int | None = None


class SoakDrift(msgspec.Struct, frozen=True, kw_only=True):
    """The last window minus the first."""

    memory_mib: float | None = None


class SoakLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for at most, and measured."""

    name: str
    unit: str = ""
    asked: int | float
    measured: int | float | None = None
    passed: bool | None = None


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a soak."""

    chain: tuple[str, ...] = ()
    rate_hz: float | None = None
    deadline_ms: float | None = None
    windows: tuple[SoakWindow, ...] = ()
    total: SoakTotal = SoakTotal()
    drift: SoakDrift = SoakDrift()
    limits: tuple[SoakLimit, ...] = ()
    passed: bool | None = None
    reason: str | None = None


class AskedLimits(Limits, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Limits of a run, which may have been of a later edgeseg."""


class AskedMeasures(Measures, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Measures of a run, which may have been of a later edgeseg."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A board as the environment of the run had it."""

    name: str
    transport: str = ""
    limits: AskedLimits | None = None
    measures: AskedMeasures | None = None


class RunBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as the run had it: SHA-256 of every file of its artifacts, ids of the keys that signed it, if known."""

    name: str
    digest: str
    files: dict[str, str] = {}
    key_ids: tuple[str, ...] | None = None


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """Who ran it."""

    user: str = ""
    host: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A `run` or `resumed` event."""

    at: str
    run: str
    edgeseg: str = ""
    runner: Runner = Runner()
    boards: tuple[str, ...] = ()
    environment: tuple[Entry, ...] = ()
    bundles: tuple[RunBundle, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A `step` event; what its result is depends on the step."""

    step: str
    status: str
    reason: str = ""
    seconds: float | None = None
    result: Any = None
    samples: tuple[Samples, ...] | None = None


class Accelerator(msgspec.Struct, frozen=True):
    """A GPU, an NPU or a stick of a board."""

    kind: str = ""
    name: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a board is: as of `edgeseg boards detect`. What it does not tell is empty or None."""

    architecture: str = ""
    cpu_model: str = ""
    cores: int | None = None
    cpu_quota: float | None = None
    memory_bytes: int | None = None
    os: str = ""
    kernel: str = ""
    model: str = ""
    profile: str = ""
    notes: tuple[str, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    l4t: str = ""
    jetpack: str = ""
    power_mode: str = ""
    container: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Telemetry of a board before anything ran; None is not readable."""

    power_mw: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    governor: str | None = None
    throttled: bool | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a board said of itself when it was reached: docs/hil.md."""

    machine: str
    edgeseg: str = ""
    description: str = ""
    board: Machine = Machine()
    reading: Reading = Reading()
    engines: dict[str, str] = {}
    glibc: str = ""
    trusted_keys: tuple[str, ...] | None = None
    emulation: str = ""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle took on a board, and how much of it was the harness."""

    seconds: float
    measured_s: float
    overhead_s: float


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """How the board was to run a bundle; engines left out, with the reason; limits and measures of this time."""

    plan: str = ""
    left_out: dict[str, str] = {}
    limits: AskedLimits | None = None
    measures: AskedMeasures | None = None


class BundleEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A `bundle` event; `artifacts` are SHA-256 by file."""

    at: str
    bundle: str
    digest: str
    artifacts: dict[str, str] = {}
    status: Literal["passed", "failed", "refused", "error"]
    reason: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The `end` of the run."""

    at: str


def take(event: Any, kind: type[T], path: Path, number: int, name: str) -> T:
    """An event, or a part of one, as what it should be. Raises BadInput, with its place, where it is not."""
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path} is damaged: event {number} ({name}): {error}") from error
