"""Places of a fleet: taken, given back and kept, whatever ends a runner."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import jinja2
import msgspec
import pytest

from edgeseg.boards.fleet.fleet import Fleet
from edgeseg.boards.fleet.lab import exporter_config
from edgeseg.boards.hil.transport import open_transport
from edgeseg.errors import BadInput, BoardBusy, BoardUnreachable, CoordinatorUnreachable, ExporterGone

from ..hil.conftest import quick, wait_until
from .conftest import SHELF, Lab, nobody, runner

RUNNER = """
import sys, msgspec
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.transport import Holder, open_transport
entry = msgspec.json.decode(sys.argv[1], type=BoardEntry)
transport = open_transport(entry, Holder(sys.argv[2], "tester", "here", 1, "now"))
print("open", flush=True)
transport.run(["sleep", "600"], 600)
"""


class Run(Fleet):
    """One of several runs."""

    def __init__(self, lab: Lab) -> None:
        self.id = runner().run
        self.lost: list[Exception] = []
        super().__init__(lab.address, self.id)

    def any(self, kind: str, board: str = "board", pinned: tuple[str, ...] = SHELF) -> str:
        return self.take(board, "", {"board": kind}, list(pinned), self.lost.append).place

    def one(self, place: str, board: str = "board") -> str:
        return self.take(board, place, {}, [place], self.lost.append).place


def keepers(run: str) -> list[int]:
    """Ids of the processes that keep places of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"edgeseg.boards.fleet.keeper" in words and run.encode() in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.hil
def test_a_place_is_held_as_long_as_its_transport_is_open(lab, make_board):
    board = make_board()
    lab.export(quick(board), name="basement")
    entry, first = lab.entry(quick(board)), runner()
    transport = open_transport(entry, first)
    assert transport.where == f"root@{board.address}:22, place {board.name} of exporter basement"
    assert transport.run(["hostname"], 20).stdout.decode().strip() == board.name
    with pytest.raises(BoardBusy, match=rf"place {board.name} is held by run {first.run} \(") as caught:
        open_transport(entry, runner())
    assert caught.value.run == first.run
    transport.close()
    assert lab.held()[board.name] == ""
    open_transport(entry, runner()).close()
    assert wait_until(lambda: not board.strays(), 5), board.strays()


@pytest.mark.hil
def test_a_killed_runner_gives_its_board_back_and_leaves_nothing_there(lab, make_board):
    board = make_board()
    lab.export(quick(board), name="cellar")
    entry = lab.entry(quick(board))
    for also_its_keeper in (False, True):
        run = runner().run
        words = [sys.executable, "-c", RUNNER, msgspec.json.encode(entry).decode(), run]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as killed:
            assert killed.stdout.readline() == "open\n"
            assert wait_until(lambda: any("sleep" in stray for stray in board.strays()))
            if also_its_keeper:
                (keeper,) = keepers(run)
                os.kill(keeper, 9)
            killed.kill()
        assert wait_until(lambda: not board.strays(), 10), board.strays()
        assert wait_until(lambda run=run: not keepers(run), 20)
        # labgrid itself lets a dead client have its place; the next run of this machine takes it.
        assert (run in lab.held()[board.name]) == also_its_keeper
    open_transport(entry, runner()).close()
    assert lab.held()[board.name] == ""


@pytest.mark.hil
def test_what_runs_on_a_board_ends_with_its_exporter(lab, make_board):
    board = make_board()
    exporter = lab.export(quick(board), name="attic")
    entry, holder = lab.entry(quick(board)), runner()
    transport = open_transport(entry, holder)
    threading.Timer(1.0, exporter.kill).start()
    with pytest.raises(ExporterGone, match=rf"place {board.name}: nobody offers its board, its exporter \(attic\)"):
        transport.run(["sleep", "60"], 60)
    assert wait_until(lambda: not board.strays(), 10), board.strays()
    with pytest.raises(ExporterGone):
        transport.run(["true"], 10)
    transport.close()
    with pytest.raises(ExporterGone):
        open_transport(entry, holder)
    lab.export(quick(board), name="attic")
    transport = open_transport(entry, holder)
    assert transport.run(["true"], 20).rc == 0
    transport.close()
    assert lab.held()[board.name] == ""


def test_any_free_board_of_a_kind_and_never_the_same_one_twice(lab):
    runs = [Run(lab) for _ in range(4)]
    assert {run.any("orin") for run in runs[:3]} == {"orin-1", "orin-2", "orin-3"}
    with pytest.raises(BoardBusy, match=r"no board with board=orin is free \(3 of 3 in use\): wait for it"):
        runs[3].any("orin")
    runs[1].give("board")
    assert runs[3].any("orin").startswith("orin")
    with pytest.raises(BadInput, match=r"no place of the fleet has the tags board=imx95, there are: .*board=n100"):
        runs[1].any("imx95")
    for run in runs:
        run.give("board")


def test_who_waits_for_a_board_gets_it_before_who_comes_later(lab):
    first, waiting, later = (Run(lab) for _ in range(3))
    first.any("n100")
    with pytest.raises(BoardBusy):
        waiting.any("n100")
    first.give("board")
    with pytest.raises(BoardBusy, match=rf"place n100 is reserved for run {waiting.id} \("):
        later.one("n100")
    assert waiting.any("n100") == "n100"
    waiting.give("board")
    assert lab.held()["n100"] == ""


def test_who_has_stopped_to_wait_does_not_keep_others_waiting(lab):
    first, waiting, later = (Run(lab) for _ in range(3))
    first.any("n100")
    with pytest.raises(BoardBusy):
        waiting.any("n100")
    first.give("board")
    assert wait_until(lambda: lab.held()["n100"] == "", 20)
    assert later.one("n100") == "n100"
    later.give("board")


def test_boards_that_nobody_offers_or_knows_are_passed_over(lab):
    gone = lab.export(nobody("pi-1", profile="pi"), name="e1")
    lab.export(nobody("pi-2", profile="pi"), nobody("pi-3", profile="pi"), name="e2")
    gone.kill()
    run = Run(lab)
    assert run.any("pi", pinned=("pi-1", "pi-3")) == "pi-3"
    with pytest.raises(BoardBusy, match=r"is free \(1 of 3 in use; place pi-") as caught:
        run.any("pi", "second", pinned=("pi-1", "pi-3"))
    assert "place pi-1: nobody offers its board, its exporter (e1)" in str(caught.value)
    assert "place pi-2: its host key is not known, expected it in [fleet.host_keys]" in str(caught.value)
    run.give("second")
    run.give("board")
    with pytest.raises(ExporterGone, match=r"no board with board=pi can be used: place pi"):
        run.any("pi", pinned=("pi-1",))


def test_two_boards_of_a_run_cannot_be_at_one_place(lab):
    run = Run(lab)
    run.one("orin-1", "a")
    with pytest.raises(BoardBusy, match=r"place orin-1 is the board a of this run already: give b another place"):
        run.one("orin-1", "b")
    run.give("a")


def test_a_board_that_does_not_answer_is_not_for_others_yet(lab):
    entry, first = lab.entry(nobody("orin-1")), runner()
    for _ in range(2):
        with pytest.raises(BoardUnreachable, match=r"orin-1: no connection to root@127.0.0.1:9"):
            open_transport(entry, first)
        assert first.run in lab.held()["orin-1"]
    with pytest.raises(BoardBusy, match=rf"is held by run {first.run}"):
        open_transport(entry, runner())
    for keeper in keepers(first.run):
        os.kill(keeper, 9)


def test_a_place_that_is_taken_away_is_told(lab):
    run = Run(lab)
    run.one("orin-2")
    refused = lab.cli("release", "orin-2")
    assert refused.exit_code == 1
    assert f"error: place orin-2 is held by run {run.id} (" in refused.stderr
    assert "(--force)" in refused.stderr
    assert not run.lost
    assert f"orin-2: taken back from run {run.id} (" in lab.cli("release", "--force", "orin-2").stdout
    assert wait_until(lambda: bool(run.lost))
    assert "place orin-2 was taken away from this run" in str(run.lost[0])
    assert "error: place orin-2 is free already" in lab.cli("release", "orin-2").stderr


def test_another_client_of_labgrid_is_respected_and_understands_us(lab):
    def other(*words: str) -> str:
        client = (sys.executable, "-m", "labgrid.remote.client", "-p", "orin-3")
        environment = {**os.environ, "LG_COORDINATOR": lab.address, "LG_HOSTNAME": "desk", "LG_USERNAME": "jane"}
        return subprocess.run([*client, *words], check=True, env=environment, capture_output=True, text=True).stdout

    other("acquire")
    run = Run(lab)
    with pytest.raises(BoardBusy, match=r"place orin-3 is held by desk/jane since 20.*Z: wait for it"):
        run.one("orin-3")
    assert "held by desk/jane, which may be at work" in lab.cli("release", "orin-3").stderr
    other("release")
    run.one("orin-3")
    assert run.id in other("who")
    run.give("board")


def test_a_lab_sees_what_it_has_and_who_has_it(lab):
    lab.export(nobody("away"), name="shed").kill()
    run = Run(lab)
    run.one("n100")
    lines = {line.split()[0]: line.split() for line in lab.cli("list").stdout.splitlines()}
    assert lines["n100"][:5] == ["n100", "board=n100", "held", "run", run.id]
    assert lines["n100"][-3:-1] == ["root@127.0.0.1:9", "shelf"]
    assert lines["orin-1"][1] == "board=orin"
    assert lines["away"][1:4] == ["-", "free,", "ExporterGone"]
    run.give("board")


def test_a_coordinator_that_goes_away_is_told_and_found_again(make_lab):
    lab = make_lab()
    exporter = lab.export(nobody("a"), name="e")
    run = Run(lab)
    run.one("a")
    lab.processes[0].kill()
    assert wait_until(lambda: bool(run.lost))
    assert wait_until(lambda: exporter.popen.poll() == 100)  # what a supervisor starts again
    assert isinstance(run.lost[0], CoordinatorUnreachable)
    with pytest.raises(CoordinatorUnreachable, match=rf"coordinator at {lab.address} does not answer: start it"):
        run.one("a")
    lab.start()
    lab.export(nobody("a"), name="e")
    assert run.one("a") == "a"
    run.give("board")


def test_the_exporters_configuration_is_no_template():
    text = exporter_config([nobody("a", user="{{ name }}")], "26.0.1")
    found = msgspec.json.decode(jinja2.Environment(line_statement_prefix="#").from_string(text).render(name="x"))
    assert found["a"] == {"NetworkService": {"address": "127.0.0.1", "port": 9, "username": "{{ name }}"}}
    assert found["edgeseg-exporter"] == {"EdgesegExporter": {"labgrid": "26.0.1"}}
