"""Eight boards, two exporters, two runners; an exporter and a board die in the middle: nothing is unaccounted for."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeseg.boards.emulated.board import EmulatedBoard
from edgeseg.boards.emulated.starting import power
from edgeseg.boards.hil import ssh_transport
from edgeseg.boards.hil.bundles import Candidate, read_candidate
from edgeseg.boards.hil.harness import Outcome, RunOptions, run_suite
from edgeseg.boards.hil.station import read_record
from edgeseg.manifest import MANIFEST, seal

from ..hil.conftest import QUICK, again, quick, wait_until

pytestmark = [pytest.mark.hil, pytest.mark.slow]
KIND = "generic-cpu"


@pytest.fixture
def bundles(bundle: Path, tmp_path: Path) -> list[Candidate]:
    """Two, each of one artifact: what counts here is what happens around them."""
    found = []
    for precision in ("fp32", "int8"):
        path = tmp_path / f"{precision}.edgeseg"
        shutil.copytree(bundle, path)
        content = json.loads((path / MANIFEST).read_text())
        kept = [a for a in content["artifacts"] if (a["format"], a["precision"]) == ("tflite", precision)]
        assert len(kept) == 1
        wanted = {file["path"] for file in kept[0]["files"]}
        for file in (path / "artifacts").iterdir():
            if file.relative_to(path).as_posix() not in wanted:
                file.unlink()
        (path / MANIFEST).write_bytes(seal({**content, "artifacts": kept}))
        found.append(read_candidate(path))
    return found


class Faults:
    """Strikes when the boards that it is for are in the middle of their first bundle."""

    def __init__(self, **strikes: Any) -> None:
        self._strikes = strikes
        self._lock = threading.Lock()

    def __call__(self, board: str, line: str) -> None:
        with self._lock:
            strike = self._strikes.pop(board, None) if "verify passed" in line else None
        if strike:
            strike()


def intervals(folder: Path) -> list[tuple[str, float, float]]:
    """From connecting to a board until the last that was heard of it, by machine."""
    machines: dict[str, str] = {}
    open_since: dict[str, float] = {}
    last: dict[str, float] = {}
    found = []
    for event in read_record(folder / "record.jsonl").events:
        board = event.get("board")
        if event["event"] == "connected":
            if board in open_since:
                found.append((machines[board], open_since[board], last[board]))
            open_since[board] = event["monotonic_s"]
        if event["event"] == "board":
            machines[board] = event["facts"]["machine"]
        if board:
            last[board] = event["monotonic_s"]
    return found + [(machines[board], since, last[board]) for board, since in open_since.items()]


def check_accounted_for(folder: Path, outcomes: list[Outcome], count: int) -> None:
    """An outcome and an event for every bundle on every board, the same, and no other."""
    told = [(o.board, o.bundle, o.status, o.reason) for o in outcomes]
    events = [event for event in read_record(folder / "record.jsonl").events if event["event"] == "bundle"]
    assert sorted(told) == sorted((e["board"], e["bundle"], e["status"], e["reason"]) for e in events)
    assert len({name[:2] for name in told}) == len(told) == count


def test_every_bundle_on_every_board_is_accounted_for(lab, make_board, bundles, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ssh_transport, "_ALIVE_S", 1)
    monkeypatch.setattr(ssh_transport, "_CONNECT_S", 3)
    boards: list[EmulatedBoard] = [make_board() for _ in range(8)]
    client = (boards[0].folder / "client.pub").read_text()
    for board in boards[1:]:  # as in a lab where one key is for all boards of a kind
        board.inside("sh", "-c", 'echo "$1" >> /etc/ssh/edgeseg_client_pub', "sh", client)
    measures = msgspec.structs.replace(QUICK, runtimes=("litert",))
    entries = [msgspec.structs.replace(quick(board), profile=KIND, measures=measures) for board in boards]
    lab.export(*entries[:4], name="one")
    two = lab.export(*entries[4:], name="two")
    asked = [lab.entry(entry) for entry in entries]
    pins = {entry.name: entry.host_key for entry in entries}
    any_two = [
        msgspec.structs.replace(asked[0], name=name, place="", filter={"board": KIND}, host_keys=pins)
        for name in ("any-1", "any-2")
    ]
    dead, gone = boards[0], boards[4:]
    faults = Faults(**{dead.name: lambda: power(again(dead), on=False), boards[4].name: two.kill})
    options = RunOptions(wait_s=300.0, retries=1, reconnect_s=2.0)
    found: dict[str, list[Outcome]] = {}

    def second_runner() -> None:
        found["second"] = run_suite(any_two, bundles[:1], tmp_path / "second", options=options)

    started = time.monotonic()
    other = threading.Timer(2.0, second_runner)
    other.start()
    found["first"] = run_suite(asked, bundles, tmp_path / "first", options=options, say=faults)
    other.join()
    seconds = time.monotonic() - started

    check_accounted_for(tmp_path / "first", found["first"], 16)
    check_accounted_for(tmp_path / "second", found["second"], 2)
    by_board = {board.name: [o for o in found["first"] if o.board == board.name] for board in boards}
    for board in boards[1:4]:
        assert [o.status for o in by_board[board.name]] == ["passed", "passed"], by_board[board.name]
    assert {o.status for o in by_board[dead.name]} == {"error"}
    for board in gone:
        last = by_board[board.name][-1]
        assert (last.status, "its exporter (two) is not connected" in last.reason) == ("error", True), last
    assert {o.status for o in found["second"]} == {"passed"}, found["second"]

    held = sorted(span for folder in ("first", "second") for span in intervals(tmp_path / folder))
    twice = [(a, b) for a, b in pairwise(held) if a[0] == b[0] and b[1] < a[2]]
    assert not twice
    assert len({machine for machine, *_ in held}) == 8

    alive = [board for board in boards if board is not dead]
    assert wait_until(lambda: not any(board.strays() for board in alive), 20), [b.strays() for b in alive]
    assert not again(dead).running
    counts = Counter(outcome.status for runner in found.values() for outcome in runner)
    shown = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    with capsys.disabled():
        print(f"\n8 boards, 2 exporters, 2 runners; an exporter and a board killed in the middle, {seconds:.0f} s")
        print(f"{counts.total()} of 18 bundles accounted for: {shown}")
        print(f"{len(held)} holdings of boards, {len(twice)} of them at once; 0 processes left on boards")
