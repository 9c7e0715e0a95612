"""What a report compares: boards, bundles, what came of each bundle on each board, and what happened meanwhile.

It is what `edgeseg hil report --json` writes, see docs/json.md.
"""

from __future__ import annotations

import msgspec

from edgeseg.boards.hil.environment import Limits, Measures
from edgeseg.hil_report.events import Cost, Executed, Facts, Soak, Telemetry

SCHEMA = 1
PASSED, FAILED, REFUSED, ERROR, UNFINISHED = "passed", "failed", "refused", "error", "unfinished"
STATUSES = (PASSED, FAILED, REFUSED, ERROR, UNFINISHED)


class RecordFile(msgspec.Struct, frozen=True, kw_only=True):
    """A station record that was read.

    Attributes:
        path: as it was given.
        sha256: of the file.
        run: id of the run.
        at: when it began, UTC.
        ended: when it ended; None of a runner that was killed, or still runs.
        edgeseg: version of the runner.
        runner: user and host.
        resumed: how often it was gone on with.
        torn: lines that are no event: what a runner was killed in.
    """

    path: str
    sha256: str
    run: str
    at: str
    ended: str | None
    edgeseg: str
    runner: str
    resumed: int
    torn: int


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board: one machine under one name.

    Attributes:
        label: unique in the report.
        name: in the records.
        machine: hash of its id; "" where it never answered.
        transport: how it was reached.
        where: as in "root@10.0.0.2:22"; "" where it never was.
        seen: when its facts were read, of the newest run; "" where they never were.
        emulated: what holds the limits of an emulated board; "" of any other.
        facts: what it said of itself; None where it never answered.
    """

    label: str
    name: str
    machine: str
    transport: str
    where: str
    seen: str
    emulated: str
    facts: Facts | None


class BundleSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle: one manifest and one set of artifact files under one name.

    Attributes:
        label: unique in the report.
        name: in the records.
        digest: SHA-256 of its manifest.
        files: SHA-256 of every file of its artifacts, by path.
        key_ids: of the keys that signed it; None where that is not on record.
    """

    label: str
    name: str
    digest: str
    files: dict[str, str]
    key_ids: tuple[str, ...] | None


class StepDone(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a step."""

    step: str
    status: str
    reason: str
    seconds: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on an engine of a board: latency of the bench, accuracy of the golden frames.

    Attributes:
        judged: whether it is the fastest that passed: limits are held against it.
        samples_ms: every single time of the bench.
        samples_agree: whether the percentiles follow from the samples; None without samples.
        version: of the engine.
        passed, reason: the gates of the bundle. None where the engine was not there.
        more: as of `edgeseg bench --json`.
    """

    format: str
    precision: str
    runtime: str
    device: str
    threads: int | None
    version: str
    judged: bool
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    fps: float | None
    load_ms: float | None
    size_mb: float | None
    peak_memory_mb: float | None
    dice: float | None
    dice_source: float | None
    agreement: float | None
    sqnr_db: float | None
    executed: Executed | None
    passed: bool | None
    reason: str | None
    samples_ms: tuple[float, ...]
    samples_agree: bool | None

    @property
    def artifact(self) -> str:
        """As in "openvino-int8"."""
        return f"{self.format}-{self.precision}"

    @property
    def engine(self) -> str:
        """As in "openvino, cpu, 1 thread"."""
        threads = None if self.threads is None else f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return ", ".join(filter(None, (self.runtime, self.device, threads)))

    @property
    def name(self) -> str:
        """As in "openvino-int8 on openvino, cpu, 1 thread": what figures of several boards are compared by."""
        return f"{self.artifact} on {self.engine}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a bundle on a board in one run.

    Attributes:
        board, bundle: labels.
        run: id.
        at: when it ended, or when the last of it was written.
        status: one of STATUSES; `unfinished` where the record ends before it does.
        reason: why it did not pass.
        steps: in the order in which they were done.
        figures: one for each artifact and engine.
        reference: what accuracy is measured against.
        telemetry: of the bench.
        soak: None where there was none.
        cost: None where the bundle did not come to its end.
        plan: how engines shared the board's memory.
        left_out: engines that were not used, with the reason.
        limits, measures: of that run.
        tries: how often it was begun.
        conditions: of the board in that run, by name: what may explain other figures.
    """

    board: str
    bundle: str
    run: str
    at: str
    status: str
    reason: str
    steps: tuple[StepDone, ...]
    figures: tuple[Figures, ...]
    reference: str
    telemetry: Telemetry | None
    soak: Soak | None
    cost: Cost | None
    plan: str
    left_out: dict[str, str]
    limits: Limits | None
    measures: Measures | None
    tries: int
    conditions: dict[str, str]

    @property
    def counts(self) -> bool:
        """Whether its figures do: not of what ended by an error or not at all, the board may have changed."""
        return self.status in (PASSED, FAILED)

    @property
    def judged(self) -> Figures | None:
        """The figures that limits are held against: those of the fastest artifact that passed."""
        return next((f for f in self.figures if f.judged), None)


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went wrong with a board: lost, rebooted, quarantine, machine changed, board error."""

    at: str
    run: str
    board: str
    kind: str
    reason: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All of a report.

    Attributes:
        created: UTC.
        edgeseg: the version that wrote it.
        results: the newest of each bundle on each board.
        history: older ones of the same board and bundle, the newest first.
        caveats: what is not proven by all this, a sentence each.
    """

    schema: int = SCHEMA
    created: str
    edgeseg: str
    records: tuple[RecordFile, ...]
    boards: tuple[Board, ...]
    bundles: tuple[BundleSeen, ...]
    results: tuple[Result, ...]
    history: tuple[Result, ...]
    incidents: tuple[Incident, ...]
    caveats: tuple[str, ...] = ()

    def result(self, board: str, bundle: str) -> Result | None:
        """The newest of a bundle on a board; None where it was never tried."""
        return next((r for r in self.results if (r.board, r.bundle) == (board, bundle)), None)

    def of_bundle(self, bundle: str) -> tuple[Result, ...]:
        """The newest results of a bundle, in the order of the boards."""
        return tuple(r for b in self.boards if (r := self.result(b.label, bundle)) is not None)
