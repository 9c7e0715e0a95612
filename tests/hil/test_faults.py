"""Whole runs on emulated boards that go wrong in the middle: one line, a record that says so, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeseg.boards.emulated.board import EmulatedBoard
from edgeseg.boards.emulated.starting import power
from edgeseg.boards.hil import ssh_transport
from edgeseg.boards.hil.bundles import Candidate
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.harness import Outcome, RunOptions, run_suite

from .conftest import QUICK, again, events, quick, wait_until

pytestmark = pytest.mark.hil
MIB = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection is noticed sooner than in a lab."""
    monkeypatch.setattr(ssh_transport, "_ALIVE_S", 1)
    monkeypatch.setattr(ssh_transport, "_CONNECT_S", 3)


def suite(
    entry: BoardEntry, candidate: Candidate, folder: Path, on_line: Callable[[str], Any] = str, **options: Any
) -> Outcome:
    said = []

    def say(board: str, line: str) -> None:
        said.append(line)
        on_line(line)

    (outcome,) = run_suite([entry], [candidate], folder, options=RunOptions(**options), say=say)
    bundle = events(folder / "record.jsonl", "bundle")[-1]
    assert (bundle["status"], bundle["reason"]) == (outcome.status, outcome.reason)
    assert "\n" not in outcome.reason
    assert not any("\n" in line for line in said)
    assert outcome.status in (folder / "junit.xml").read_text() or outcome.status in ("passed", "refused", "failed")
    return outcome


def only(entry: BoardEntry, *runtimes: str, **measures: Any) -> BoardEntry:
    return msgspec.structs.replace(entry, measures=msgspec.structs.replace(QUICK, runtimes=runtimes, **measures))


def fill_disk(board: EmulatedBoard) -> None:
    """To the last block."""
    for size in ("64k", "1k"):
        board.inside("sh", "-c", f"dd if=/dev/zero of=/data/full{size} bs={size} 2> /dev/null; true")


def test_a_whole_run_on_a_slow_small_board(make_board, candidate, tmp_path):
    board = make_board(cpus=0.5, memory_bytes=512 * MIB, disk_bytes=32 * MIB)
    assert suite(quick(board), candidate, tmp_path / "out").status == "passed"
    record = tmp_path / "out" / "record.jsonl"
    assert events(record, "board")[0]["facts"]["board"]["cpu_quota"] == 0.5
    assert {row["runtime"] for row in events(record, "step")[-1]["result"]["rows"]} == {
        "litert",
        "onnxruntime",
        "openvino",
    }
    # 5 s are the target on an idle machine.
    assert events(record, "cost")[0]["overhead_s"] < 20
    assert wait_until(lambda: not board.strays(), 5), board.strays()
    assert not board.inside("ls", "/data/edgeseg").strip()


def test_unplugged_for_good(make_board, candidate, tmp_path):
    board = make_board()

    def unplug(line: str) -> None:
        if "deploy passed" in line:
            threading.Timer(0.5, board.plug, kwargs={"plugged": False}).start()

    outcome = suite(only(quick(board), "openvino"), candidate, tmp_path / "out", unplug, reconnect_s=1.0)
    assert outcome.status == "error"
    assert f"{board.name}: no connection to root@{board.address}:22" in outcome.reason
    record = tmp_path / "out" / "record.jsonl"
    assert [event["during"] for event in events(record, "lost")] == [candidate.name]
    assert events(record, "quarantine")
    assert wait_until(lambda: not board.strays(), 30), board.strays()


def test_unplugged_for_a_moment(make_board, candidate, tmp_path):
    board = make_board()
    pulled = []

    def unplug(line: str) -> None:
        if "verify passed" in line and not pulled:
            pulled.append(line)
            board.plug(plugged=False)
            threading.Timer(6.0, board.plug, kwargs={"plugged": True}).start()

    assert suite(only(quick(board), "litert"), candidate, tmp_path / "out", unplug).status == "passed"
    record = tmp_path / "out" / "record.jsonl"
    assert len(events(record, "lost")) == 1
    steps = [event["step"] for event in events(record, "step")]
    assert steps == ["deploy", "verify", "deploy", "bench"]


def test_rebooted_in_the_middle(make_board, candidate, tmp_path):
    board = make_board(disk_bytes=32 * MIB)
    pulled = []

    def reboot(line: str) -> None:
        if "verify passed" in line and not pulled:
            pulled.append(line)
            power(board, on=False)
            threading.Timer(2.0, lambda: power(board, on=True)).start()

    outcome = suite(only(quick(board), "litert"), candidate, tmp_path / "out", reboot)
    assert outcome.status == "passed"
    assert events(tmp_path / "out" / "record.jsonl", "rebooted")

    pulled.clear()
    board = again(board)
    outcome = suite(only(quick(board), "litert"), candidate, tmp_path / "without", reboot, retries=0)
    assert (outcome.status, outcome.reason) == ("error", f"{board.name} was rebooted in the middle")


def test_a_disk_that_is_full_before(make_board, candidate, tmp_path):
    board = make_board(disk_bytes=8 * MIB)
    fill_disk(board)
    outcome = suite(quick(board), candidate, tmp_path / "out")
    assert outcome.status == "refused"
    assert "MiB are free: make room, or choose another work folder" in outcome.reason
    assert not [e for e in events(tmp_path / "out" / "record.jsonl", "command") if e["step"] != "probe"]


def test_a_disk_that_fills_up_in_the_middle(make_board, candidate, tmp_path):
    board = make_board(disk_bytes=16 * MIB)

    def fill(line: str) -> None:
        if "deploy passed" in line:
            fill_disk(board)

    outcome = suite(only(quick(board), "litert"), candidate, tmp_path / "out", fill)
    assert outcome.status == "failed"
    assert "No space left on device" in outcome.reason


@pytest.mark.parametrize("memory", [64, 128, 256, 512])
def test_memory_is_planned_for_and_nothing_is_killed(memory, make_board, candidate, tmp_path):
    board = make_board(memory_bytes=memory * MIB)
    outcome = suite(quick(board), candidate, tmp_path / "out")
    assert board.groups.oom_kills() == 0
    if memory == 64:
        assert outcome.status == "refused"
        assert "does not fit into the memory" in outcome.reason
    else:
        assert outcome.status == "passed"
        fit = events(tmp_path / "out" / "record.jsonl", "fit")[0]
        assert ("one after the other" in fit["plan"] or len(fit["left_out"]) == 2) == (memory <= 256)


def test_memory_that_is_taken_away_in_the_middle(make_board, candidate, tmp_path):
    board = make_board(memory_bytes=512 * MIB)

    def squeeze(line: str) -> None:
        if "deploy passed" in line:
            board.groups.set_memory(48 * MIB)

    outcome = suite(only(quick(board), "openvino"), candidate, tmp_path / "out", squeeze)
    assert outcome.status in ("error", "failed")
    assert "memory" in outcome.reason or "died" in outcome.reason or "killed" in outcome.reason


def test_a_board_that_is_throttled_in_the_middle(make_board, candidate, tmp_path):
    board = make_board()

    def throttle(line: str) -> None:
        if "verify passed" in line:
            board.groups.set_cpus(0.25)

    outcome = suite(only(quick(board), "litert"), candidate, tmp_path / "out", throttle)
    assert outcome.status == "error"
    assert f"{board.name} changed in the middle, cores from " in outcome.reason
    assert "cpu_quota from None to 0.25" in outcome.reason
    assert events(tmp_path / "out" / "record.jsonl", "after")[0]["facts"]["board"]["cpu_quota"] == 0.25


def test_an_engine_that_is_not_there(make_board, candidate, tmp_path):
    board = make_board(without=("onnxruntime", "openvino"))
    assert suite(quick(board), candidate, tmp_path / "all").status == "passed"
    left = events(tmp_path / "all" / "record.jsonl", "fit")[0]["left_out"]
    assert left["openvino"] == f"openvino is not installed on {board.name}"
    outcome = suite(only(quick(board), "openvino"), candidate, tmp_path / "one")
    assert outcome.status == "refused"
    assert f"cannot run on {board.name}: openvino is not installed on {board.name}" in outcome.reason


def test_a_clock_that_is_wrong(make_board, candidate, tmp_path):
    board = make_board(clock_s=-3e7)
    outcome = suite(quick(board), candidate, tmp_path / "out")
    assert outcome.status == "error"
    assert f"{board.name}: its clock is 347 days behind" in outcome.reason
    assert events(tmp_path / "out" / "record.jsonl", "board")[0]["facts"]["time_unix"] > 0


def test_a_board_that_is_off_and_one_that_is_not(make_board, candidate, tmp_path):
    on, off = make_board(), make_board()
    power(off, on=False)
    entries = [only(quick(board), "litert") for board in (on, off)]
    outcomes = run_suite(entries, [candidate], tmp_path / "out", options=RunOptions(retries=1))
    assert [outcome.status for outcome in outcomes] == ["passed", "error"]
    lost = events(tmp_path / "out" / "record.jsonl", "lost")
    assert [event["board"] for event in lost] == [off.name] * 2
    assert events(tmp_path / "out" / "record.jsonl", "board error")[0]["error"] == "BoardUnreachable"


def test_a_machine_in_the_boards_place(make_board, candidate, tmp_path):
    one, other = make_board(), make_board()
    entry = msgspec.structs.replace(quick(one), host_key=quick(other).host_key)
    outcome = suite(entry, candidate, tmp_path / "out")
    assert outcome.status == "error"
    assert "shows the host key SHA256:" in outcome.reason
    assert events(tmp_path / "out" / "record.jsonl", "board error")[0]["error"] == "WrongHostKey"


def test_two_runners_that_want_one_board(make_board, candidate, tmp_path):
    board = make_board()
    entry = only(quick(board), "litert")
    found: dict[str, Outcome] = {}
    started = threading.Event()

    def first() -> None:
        found["first"] = suite(entry, candidate, tmp_path / "first", lambda line: started.set())

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(60)
    refused = suite(entry, candidate, tmp_path / "second")
    waited = suite(entry, candidate, tmp_path / "third", wait_s=120.0)
    thread.join()
    assert (found["first"].status, refused.status, waited.status) == ("passed", "error", "passed")
    run = events(tmp_path / "first" / "record.jsonl", "run")[0]["run"]
    assert f"{board.name} is in use by run {run} (" in refused.reason
    ended = events(tmp_path / "first" / "record.jsonl", "end")[0]["monotonic_s"]
    assert events(tmp_path / "third" / "record.jsonl", "connected")[0]["monotonic_s"] > ended - 1
