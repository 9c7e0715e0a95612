"""One station record, board by board: what came of every bundle, and what happened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeseg.boards.hil.station import Record, read_record
from edgeseg.boards.hil.steps import BENCH, SOAK, VERIFY, fastest
from edgeseg.errors import BadInput
from edgeseg.evidence import Latency
from edgeseg.hil_report import events as typed
from edgeseg.hil_report.comparison import (
    UNFINISHED,
    Figures,
    Incident,
    RecordFile,
    Result,
    StepDone,
)
from edgeseg.hil_report.events import Entry, RunBundle, take

INCIDENTS = ("lost", "rebooted", "quarantine", "machine changed", "board error")
_ROUNDED_MS = 2e-5  # bench writes samples with five decimals


@dataclass(slots=True)
class Tried:
    """A bundle on a board, once, as far as the record goes.

    Attributes:
        at: of the last that was written of it.
        tries: how often it was begun.
        again: whether a runner went on with it after its end: what was done of it counts on.
    """

    at: str = ""
    again: bool = False
    tries: int = 0
    steps: dict[str, typed.Step] = field(default_factory=dict)
    fit: typed.Fit = field(default_factory=typed.Fit)
    cost: typed.Cost | None = None
    end: typed.BundleEnd | None = None
    entry: Entry | None = None


@dataclass(slots=True)
class BoardRun:
    """A board in one record.

    Attributes:
        name: of the board.
        seen, facts: what it said of itself, and when; None where it never answered.
        where: as it was connected to.
        entry: as the environment had it.
        tried: by digest of the bundle, the last one last.
    """

    name: str
    seen: str = ""
    facts: typed.Facts | None = None
    where: str = ""
    entry: Entry | None = None
    tried: dict[str, list[Tried]] = field(default_factory=dict)

    @property
    def machine(self) -> str:
        """ "" where it never answered."""
        return self.facts.machine if self.facts else ""


@dataclass(frozen=True, slots=True)
class RunRead:
    """One record, understood."""

    file: RecordFile
    bundles: dict[str, RunBundle]
    boards: dict[str, BoardRun]
    incidents: tuple[Incident, ...]
    events: int

    @property
    def finished(self) -> bool:
        """Whether anything came to an end."""
        return any(tried[-1].end for board in self.boards.values() for tried in board.tried.values())


def read_run(path: Path) -> RunRead:
    """Read one record. Raises BadInput where it is none, of a later schema, or damaged."""
    record = read_record(path)
    reader = _Reader(path)
    for number, event in enumerate(record.events, 1):
        reader.take(event, number)
    return reader.done(record, hashlib.sha256(path.read_bytes()).hexdigest())


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: typed.Run | None = None
        self._resumed = 0
        self._ended: str | None = None
        self._bundles: dict[str, RunBundle] = {}
        self._boards: dict[str, BoardRun] = {}
        self._incidents: list[Incident] = []

    def take(self, event: dict[str, Any], number: int) -> None:
        kind = str(event["event"])
        if kind in ("run", "resumed"):
            self._begin(self._as(event, typed.Run, number), kind)
        elif kind == "end":
            self._ended = self._as(event, typed.End, number).at
        elif isinstance(event.get("board"), str):
            self._of_board(event, kind, number)

    def done(self, record: Record, sha256: str) -> RunRead:
        first = self._first
        if first is None:
            raise BadInput(f"{self._path} is not a station record, expected JSON Lines that begin with a run")
        file = RecordFile(
            path=str(self._path),
            sha256=sha256,
            run=first.run,
            at=first.at,
            ended=self._ended,
            edgeseg=first.edgeseg,
            runner="@".join(filter(None, (first.runner.user, first.runner.host))),
            resumed=self._resumed,
            torn=record.torn,
        )
        return RunRead(file, self._bundles, self._boards, tuple(self._incidents), len(record.events))

    def _begin(self, run: typed.Run, kind: str) -> None:
        self._first = self._first or run
        self._resumed += kind == "resumed"
        self._ended = None
        self._bundles.update((bundle.digest, bundle) for bundle in run.bundles)
        entries = {entry.name: entry for entry in run.environment}
        for name in run.boards:
            board = self._boards.setdefault(name, BoardRun(name))
            board.entry = entries.get(name, board.entry)
            for tried in board.tried.values():
                tried[-1].again = True

    def _of_board(self, event: dict[str, Any], kind: str, number: int) -> None:
        board = self._boards.setdefault(event["board"], BoardRun(event["board"]))
        if kind in INCIDENTS:
            self._incidents.append(self._incident(event, kind, number))
            if kind == "machine changed":
                board.tried.clear()
        elif kind == "connected":
            board.where = str(event.get("where", ""))
        elif kind == "board":
            board.facts = take(event.get("facts"), typed.Facts, self._path, number, "board")
            board.seen = str(event.get("at", ""))
        elif isinstance(digest := event.get("digest"), str):
            self._of_bundle(_current(board.tried.setdefault(digest, [])), event, kind, number, board.entry)

    def _of_bundle(self, tried: Tried, event: dict[str, Any], kind: str, number: int, entry: Entry | None) -> None:
        tried.at, tried.entry = str(event.get("at", "")), entry
        if kind == "fit":
            tried.fit = self._as(event, typed.Fit, number)
            tried.tries += 1
        elif kind == "step":
            step = self._as(event, typed.Step, number)
            tried.steps[step.step] = step
        elif kind == "cost":
            tried.cost = self._as(event, typed.Cost, number)
        elif kind == "bundle":
            tried.end = end = self._as(event, typed.BundleEnd, number)
            named = RunBundle(name=end.bundle, digest=end.digest, files=end.artifacts)
            self._bundles.setdefault(end.digest, named)

    def _incident(self, event: dict[str, Any], kind: str, number: int) -> Incident:
        run = self._first.run if self._first else ""
        reason = str(event.get("reason", ""))
        if kind == "machine changed":
            reason = f"was machine {event.get('before')}, now {event.get('now')}: what was done before does not count"
        elif kind == "rebooted":
            reason = f"rebooted during {event.get('bundle', 'the run')}"
        return Incident(at=str(event.get("at", "")), run=run, board=event["board"], kind=kind, reason=reason)

    def _as(self, event: dict[str, Any], kind: type[typed.T], number: int) -> typed.T:
        return take(event, kind, self._path, number, str(event["event"]))


def _current(tried: list[Tried]) -> Tried:
    """The one that goes on: a new one where the last came to its end, unless a runner went on with that."""
    if not tried or (tried[-1].end and not tried[-1].again):
        tried.append(Tried())
    tried[-1].end, tried[-1].again = None, False
    return tried[-1]


def result_of(run: RunRead, board: BoardRun, tried: Tried, labels: tuple[str, str]) -> Result:
    """What came of a bundle on a board, under their labels in the report.

    Raises BadInput where the result of a step is damaged.
    """
    asked = tried.entry or Entry(name=board.name)
    bench, verify = (_measured(run, tried, step) for step in (BENCH, VERIFY))
    measured = bench or verify or typed.Measurement()
    return Result(
        board=labels[0],
        bundle=labels[1],
        run=run.file.run,
        at=tried.end.at if tried.end else tried.at,
        status=tried.end.status if tried.end else UNFINISHED,
        reason=tried.end.reason if tried.end else "the record ends before it does",
        steps=tuple(map(_step, tried.steps.values())),
        figures=tuple(_figures(measured.rows, tried.steps.get(BENCH), board)),
        reference=measured.reference,
        telemetry=bench.telemetry if bench else None,
        soak=_soak(run, tried),
        cost=tried.cost,
        plan=tried.fit.plan,
        left_out=tried.fit.left_out,
        limits=tried.fit.limits or asked.limits,
        measures=tried.fit.measures or asked.measures,
        tries=tried.tries,
        conditions=_conditions(board.facts, run.file.edgeseg),
    )


def _conditions(facts: typed.Facts | None, runner: str) -> dict[str, str]:
    if facts is None:
        return {}
    found = facts.board
    told = {
        "kernel": found.kernel,
        "system": found.os,
        "JetPack": found.jetpack or found.l4t,
        "power mode": found.power_mode,
        "governor": facts.reading.governor,
        "cores": found.cores,
        "CPU quota": found.cpu_quota,
        "memory in MiB": None if found.memory_bytes is None else found.memory_bytes >> 20,
        "edgeseg": facts.edgeseg,
        "edgeseg of the runner": runner,
        **facts.engines,
    }
    return {name: str(value) for name, value in told.items() if value not in (None, "")}


def _step(step: typed.Step) -> StepDone:
    return StepDone(step=step.step, status=step.status, reason=step.reason, seconds=step.seconds)


def _measured(run: RunRead, tried: Tried, step: str) -> typed.Measurement | None:
    found = tried.steps.get(step)
    if found is None or found.result is None:
        return None
    return _part(run, found, typed.Measurement)


def _soak(run: RunRead, tried: Tried) -> typed.Soak | None:
    found = tried.steps.get(SOAK)
    return None if found is None or found.result is None else _part(run, found, typed.Soak)


def _part(run: RunRead, step: typed.Step, kind: type[typed.T]) -> typed.T:
    try:
        return msgspec.convert(step.result, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{run.file.path} is damaged: the result of {step.step}: {error}") from error


def _figures(rows: Iterable[typed.Row], bench: typed.Step | None, board: BoardRun) -> Iterator[Figures]:
    """Rows with the samples that belong to them."""
    rows = tuple(rows)
    raw = (bench.samples if bench else None) or ()
    samples = {(s.format, s.precision, s.runtime, s.device): s.infer_ms for s in raw}
    best = fastest(msgspec.to_builtins(row) for row in rows)
    versions = board.facts.engines if board.facts else {}
    names = [name for name in typed.Row.__struct_fields__ if name in Figures.__struct_fields__]
    for row in rows:
        key = (row.format, row.precision, row.runtime, row.device)
        times = samples.get(key, ())
        yield Figures(
            **{name: getattr(row, name) for name in names},
            version=versions.get(row.runtime, ""),
            judged=best is not None and key == tuple(best[n] for n in ("format", "precision", "runtime", "device")),
            samples_ms=times,
            samples_agree=_agree(row, times),
        )


def _agree(row: typed.Row, times: tuple[float, ...]) -> bool | None:
    """Whether what a row says follows from its samples."""
    if not times or row.p50_ms is None or row.p99_ms is None:
        return None
    latency = Latency.of(np.array(times) / 1e3)
    pairs = ((latency.p50_ms, row.p50_ms), (latency.p99_ms, row.p99_ms))
    return all(abs(of_samples - said) <= _ROUNDED_MS for of_samples, said in pairs)
