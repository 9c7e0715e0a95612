"""The station record of a run: JSON Lines, each on the disk before the run goes on: a dead runner leaves a whole one.

docs/hil.md describes the events.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from edgeseg.errors import BadInput

SCHEMA = 1
RECORD = "record.jsonl"
_encode = msgspec.json.Encoder().encode


class Station:
    """Writes one record; used by the threads of all boards. A context manager."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Begin a record, or go on with one.

        Raises BadInput where the file cannot be written, or is there and is not to be resumed.
        """
        self.path = path
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (0 if resume else os.O_CREAT | os.O_EXCL)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, flags, 0o644)
            _fsync_folder(path.parent)
        except FileExistsError as error:
            raise BadInput(f"{path} is there already: choose another -o, or go on with it (--resume {path})") from error
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}") from error
        if resume and not path.read_bytes().endswith(b"\n"):
            os.write(self._file, b"\n")  # what its runner was killed in stays a line of its own

    def write(self, event: str, **fields: Any) -> None:
        """Write an event with the time, UTC and monotonic. Raises BadInput where the disk does not take it."""
        line = _encode({"event": event, "at": utc(), "monotonic_s": round(time.monotonic(), 6), **fields}) + b"\n"
        with self._lock:
            try:
                os.write(self._file, line)
                os.fsync(self._file)
            except OSError as error:
                raise BadInput(f"{self.path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; a thread that still writes gets the error of a closed one, never another's file."""
        with self._lock:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class Done:
    """What is complete on one board, by an earlier part of a record.

    Attributes:
        bundles: the last `bundle` event by digest, of those that are not to be repeated.
        steps: the last `step` event by digest and step, of those that came to a result.
    """

    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """A record that was read.

    Attributes:
        run: id of the run.
        digests: of its bundles, by name; those that tests brought themselves too.
        boards: names, in order.
        events: all of them.
        torn: lines that are no event: what a runner was killed in.
    """

    run: str
    digests: dict[str, str]
    boards: tuple[str, ...]
    events: list[dict[str, Any]]
    torn: int = 0

    def done(self, board: str) -> Done:
        """What a run that goes on need not do again on a board: all but what ended by an error."""
        done = Done()
        for event in self.events:
            if event.get("board") != board:
                continue
            if event["event"] == "step" and event["status"] in ("passed", "failed"):
                done.steps[event["digest"], event["step"]] = event
            if event["event"] == "bundle" and event["status"] != "error":
                done.bundles[event["digest"]] = event
            if event["event"] == "machine changed":
                done = Done()
        return done

    def machine(self, board: str) -> str:
        """The machine that the board was, "" where that was not found out."""
        found = [e["facts"]["machine"] for e in self.events if e["event"] == "board" and e["board"] == board]
        return str(found[-1]) if found else ""


def read_record(path: Path) -> Record:
    """Read a record, of a run that ended or of one that was killed.

    Raises BadInput where it is none, or of a later schema.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    events, torn = [], 0
    for line in lines:
        try:
            event = msgspec.json.decode(line, type=dict[str, Any])
            event["event"]
        except (msgspec.DecodeError, KeyError):
            torn += bool(line)
            continue
        events.append(event)
    first = events[0] if events else {}
    if first.get("event") != "run":
        raise BadInput(f"{path} is not a station record, expected JSON Lines that begin with a run")
    if first.get("schema") != SCHEMA:
        raise BadInput(f"{path} has schema {first.get('schema')}, this edgeseg reads {SCHEMA}: upgrade edgeseg")
    try:
        digests = {bundle["name"]: bundle["digest"] for bundle in first["bundles"]}
        digests |= {event["bundle"]: event["digest"] for event in events if event["event"] == "bundle"}
        return Record(first["run"], digests, tuple(first["boards"]), events, torn)
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged: its boards and bundles are not named as docs/hil.md says") from error


def check_same(record: Record, path: Path, digests: Mapping[str, str], boards: Sequence[str]) -> None:
    """Raise BadInput unless a run has the bundles and boards of the record that it is to go on with."""
    for name, known in digests.items():
        if record.digests.get(name) != known:
            raise BadInput(f"{name} is not the bundle of that name in {path}: begin a new record (-o)")
    if other := sorted(set(boards) ^ set(record.boards)):
        raise BadInput(f"{path} is of the boards {', '.join(record.boards)}, not the same as now: {', '.join(other)}")


def utc() -> str:
    """Now, as in 2026-01-31T12:00:00.123Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
