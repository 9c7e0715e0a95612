"""Records: one of a real run on two boards that are this machine, and variants of it that went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from edgeseg.boards.hil.bundles import read_candidate
from edgeseg.boards.hil.environment import BoardEntry, Limits, Measures, local_board
from edgeseg.boards.hil.harness import run_suite
from edgeseg.cli import main

from ..chromium import chromium  # noqa: F401

Event = dict[str, Any]
Change = Callable[[list[Event]], list[Event]]
WriteRecord = Callable[..., Path]
MEASURES = Measures(
    threads=1,
    runtimes=("litert", "onnxruntime"),
    warm_up_rounds=0,
    bench_rounds=3,
    bench_repeats=4,
    soak_minutes=0.02,
    soak_fps=5.0,
    soak_deadline_ms=2000.0,
    timeout_s=120,
)
GENEROUS = Limits(p99_ms=5000.0, dice=0.5, soak_p999_ms=5000.0, soak_missed=100, soak_drift_mib=100.0)


@pytest.fixture(scope="session")
def record_file(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a real run: the bundle passed on "bench-pc", and failed on "cart" for its p99."""
    folder = tmp_path_factory.mktemp("station")
    entries = [
        _entry(folder, "bench-pc", GENEROUS),
        _entry(folder, "cart", msgspec.structs.replace(GENEROUS, p99_ms=1e-6)),
    ]
    outcomes = run_suite(entries, [read_candidate(bundle)], folder / "out")
    assert [outcome.status for outcome in outcomes] == ["passed", "failed"], outcomes
    return folder / "out" / "record.jsonl"


def _entry(folder: Path, name: str, limits: Limits) -> BoardEntry:
    work, lease = folder / name, folder / f"{name}.lease"
    return msgspec.structs.replace(
        local_board(), name=name, work=str(work), lease=str(lease), limits=limits, measures=MEASURES
    )


@pytest.fixture
def events(record_file: Path) -> list[Event]:
    """Of that record, to be changed."""
    return [json.loads(line) for line in record_file.read_text().splitlines()]


@pytest.fixture
def write_record(tmp_path: Path) -> WriteRecord:
    """Write events as a record, of another run and other boards where those are named."""

    def write(events: list[Event], name: str = "changed", run: str = "", **boards: str) -> Path:
        path = tmp_path / name / "record.jsonl"
        path.parent.mkdir(parents=True)
        text = "".join(json.dumps(_of(event, run, boards)) + "\n" for event in events)
        path.write_text(text)
        return path

    return write


def _of(event: Event, run: str, boards: dict[str, str]) -> Event:
    changed = dict(event)
    if run and event["event"] in ("run", "resumed"):
        changed["run"] = run
    if event.get("board") in boards:
        changed["board"] = boards[event["board"]]
    if event["event"] == "run":
        changed["boards"] = [boards.get(name, name) for name in event["boards"]]
        changed["environment"] = [{**e, "name": boards.get(e["name"], e["name"])} for e in event["environment"]]
    return changed


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Result, str, dict[str, Any]]]:
    """Run the command: what it said, its page and its data."""

    def run(*records: Path) -> tuple[Result, str, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("report")
        page, data = folder / "report.html", folder / "report.json"
        words = ["hil", "report", *map(str, records), "-o", str(page), "--json", str(data)]
        result = CliRunner().invoke(main, words)
        if result.exit_code:
            assert not page.exists()
            return result, "", {}
        return result, page.read_text(), json.loads(data.read_text())

    return run
