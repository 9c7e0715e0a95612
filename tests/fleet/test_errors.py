"""What goes wrong with a fleet: one line, of a type of its own, and a station record that says so."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from importlib.metadata import version

import msgspec
import pytest

from edgeseg import plugins
from edgeseg.boards.fleet.fleet import Fleet
from edgeseg.boards.fleet.lab import exporter_config, list_places
from edgeseg.boards.hil.harness import RunOptions, run_suite

from ..hil.conftest import events, quick, wait_until
from .conftest import Process, nobody, runner


@pytest.fixture
def prove(candidate, tmp_path):
    """Run a suite that must end with an error: its type and reason, by the record."""

    def run(entry, **options):
        folder = tmp_path / secrets.token_hex(4)
        (outcome,) = run_suite([entry], [candidate], folder, options=RunOptions(retries=0, **options))
        assert outcome.status == "error"
        assert "\n" not in outcome.reason
        (event,) = events(folder / "record.jsonl", "board error")
        (bundle,) = events(folder / "record.jsonl", "bundle")
        assert event["reason"] == bundle["reason"] == outcome.reason
        assert bundle["status"] == "error"
        assert "<error" in (folder / "junit.xml").read_text()
        return event["error"], outcome.reason

    return run


def test_a_coordinator_that_does_not_answer(lab, prove, invoke):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    expected = f"labgrid's coordinator at {address} does not answer: start it (`edgeseg hil fleet coordinator`)"
    kind, reason = prove(lab.entry(nobody("n100"), coordinator=address))
    assert kind == "CoordinatorUnreachable"
    assert expected in reason
    for words in (("list",), ("release", "n100")):
        done = invoke("hil", "fleet", *words, "--coordinator", address)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: {expected}")
        assert done.stderr.count("\n") == 1


def test_a_place_that_is_not_there(lab, prove):
    kind, reason = prove(lab.entry(nobody("nowhere")))
    assert kind == "BadInput"
    assert f"the fleet of {lab.address} has no place 'nowhere', expected one of: " in reason


def test_a_place_that_another_runner_has(lab, prove):
    other = runner().run
    fleet = Fleet(lab.address, other)
    fleet.take("board", "n100", {}, ["n100"], print)
    kind, reason = prove(lab.entry(nobody("n100")), wait_s=1.0)
    assert kind == "BoardBusy"
    assert f"place n100 is held by run {other} (" in reason
    assert "since 20" in reason
    fleet.give("board")


def test_a_place_of_a_dead_exporter(lab, prove):
    lab.export(nobody("left"), name="dead").kill()
    kind, reason = prove(lab.entry(nobody("left")))
    assert kind == "ExporterGone"
    assert "place left: nobody offers its board, its exporter (dead) is not connected to the coordinator" in reason


def test_an_exporter_of_another_version(lab, prove):
    lab.export(nobody("old"), name="museum").kill()
    path = lab.folder / "museum.yaml"
    path.write_text(exporter_config([nobody("old")], "25.0.1"))
    words = ("-m", "labgrid.remote.exporter", "--coordinator", lab.address, "--name", "museum", str(path))
    lab.processes.append(Process((sys.executable, *words), "Exporter ready"))
    assert wait_until(lambda: any(place.labgrid == "25.0.1" for place in list_places(lab.address)))
    kind, reason = prove(lab.entry(nobody("old")))
    assert kind == "ExporterMismatch"
    assert f"place old: its exporter museum has labgrid 25.0.1, this runner {version('labgrid')}" in reason
    (line,) = (line for line in lab.cli("list").stdout.splitlines() if line.startswith("old "))
    assert line.split()[2:4] == ["free,", "ExporterMismatch"]
    assert line.split()[-2:] == ["museum", "25.0.1"]


def test_an_exporter_that_tells_no_version_is_a_plain_one_of_labgrid(lab):
    lab.export(nobody("plain"), name="plain").kill()
    path = lab.folder / "plain.yaml"
    path.write_text("plain: {NetworkService: {address: 127.0.0.1, username: root}}\n")
    words = ("-m", "labgrid.remote.exporter", "--coordinator", lab.address, "--name", "plain", str(path))
    lab.processes.append(Process((sys.executable, *words), "Exporter ready"))
    assert wait_until(lambda: any(place.name == "plain" and place.board for place in list_places(lab.address)))
    fleet = Fleet(lab.address, runner().run)
    found = fleet.take("board", "plain", {}, ["plain"], print)
    assert (found.host, found.port, found.user, found.labgrid) == ("127.0.0.1", 22, "root", "")
    fleet.give("board")


def test_labgrid_that_is_not_installed(lab, prove, invoke, monkeypatch):
    monkeypatch.setitem(plugins.EXTRAS, "fleet", ("no-such-labgrid",))
    kind, reason = prove(lab.entry(nobody("n100")))
    assert kind == "MissingDependency"
    assert "no-such-labgrid is not installed" in reason
    assert reason.endswith("pip install 'edgeseg[fleet]'")
    done = invoke("hil", "fleet", "list")
    assert (done.exit_code, done.stderr.endswith("pip install 'edgeseg[fleet]'\n")) == (1, True)


def test_a_place_of_that_name_at_another_exporter(lab, invoke):
    done = invoke("hil", "fleet", "export", lab.folder / "shelf.toml", "--name", "e2", "--coordinator", lab.address)
    assert done.exit_code == 1
    assert "error: place orin-1 is there already, for shelf/orin-1/NetworkService: name the" in done.stderr


def test_an_environment_with_nothing_to_offer(tmp_path, invoke):
    path = tmp_path / "lab.toml"
    path.write_text('[[boards]]\nname = "here"\ntransport = "local"\n')
    done = invoke("hil", "fleet", "export", path)
    assert done.exit_code == 1
    assert "error: no board to offer, expected host and user of at least one" in done.stderr


@pytest.mark.hil
def test_another_machine_at_a_place(lab, make_board, prove):
    one, other = make_board(), make_board()
    lab.export(quick(one), name="swapped")
    pins = {one.name: quick(other).host_key}
    kind, reason = prove(lab.entry(quick(one), host_keys=pins))
    assert kind == "WrongHostKey"
    assert "shows the host key SHA256:" in reason
    assert lab.held()[one.name] == ""


def test_the_runner_never_imports_labgrid(lab):
    code = (
        "import sys, msgspec\n"
        "from edgeseg.boards.hil.environment import BoardEntry\n"
        "from edgeseg.boards.hil.transport import Holder, open_transport\n"
        "try: open_transport(msgspec.json.decode(sys.argv[1], type=BoardEntry), Holder('r', 'u', 'h', 1, ''))\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print([m for m in ('labgrid', 'grpc') if m in sys.modules])\n"
    )
    entry = msgspec.json.encode(lab.entry(nobody("nowhere"))).decode()
    done = Process((sys.executable, "-c", code, entry), "[]", PYTHONWARNINGS="error")
    assert done.said == ["BadInput\n", "[]\n"]
    assert os.getpid() != done.popen.pid
