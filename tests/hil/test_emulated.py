"""Emulated boards: what they are, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from edgeseg.boards.emulated import limits, network
from edgeseg.boards.emulated.board import list_boards
from edgeseg.boards.emulated.limits import groups
from edgeseg.boards.emulated.starting import down, power, up
from edgeseg.boards.hil.facts import decode_facts
from edgeseg.boards.hil.transport import open_transport
from edgeseg.errors import BadInput, BoardError

from .conftest import PYTHON, again, quick, wait_until

pytestmark = pytest.mark.hil
MIB = 1 << 20


def facts(board, holder):
    transport = open_transport(quick(board), holder)
    done = transport.run([PYTHON, "-m", "edgeseg.cli", "hil", "probe", "--work", "/data"], 60)
    transport.close()
    assert done.rc == 0, done.stderr
    return decode_facts(done.stdout)


def test_a_board_has_limits_names_and_engines_of_its_own(make_board, holder):
    start = time.monotonic()
    board = make_board(cpus=0.5, memory_bytes=512 * MIB, disk_bytes=32 * MIB, without=("onnxruntime",))
    assert time.monotonic() - start < 15
    found = facts(board, holder)
    assert found.board["cpu_quota"] == 0.5
    assert found.board["memory_limit_bytes"] == 512 * MIB
    assert sorted(found.engines) == ["litert", "openvino"]
    assert found.work_free_bytes < 32 * MIB
    assert found.emulation == board.limits
    assert board.limits.startswith("cgroup")
    assert board.inside("hostname").strip() == board.name
    assert found.boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with NamedTemporaryFile() as ours:
        assert Path(ours.name).name not in board.inside("ls", "/tmp").split()


def test_nothing_of_a_board_stays(make_board):
    board = make_board(memory_bytes=256 * MIB, disk_bytes=32 * MIB)
    board.inside("sh", "-c", "setsid sleep 600 > /dev/null 2>&1 & touch /etc/made-there")
    assert wait_until(lambda: any("sleep 600" in stray for stray in board.strays()))
    down(board.name)
    assert not list_boards()
    assert not Path("/etc/made-there").exists()
    assert not board.folder.exists()
    assert not any(folder.exists() for folder in groups(board.number).folders.values())
    assert not (Path("/sys/class/net") / network.interface(board.number)).exists()
    assert str(board.folder) not in Path("/proc/mounts").read_text()


def test_a_board_whose_process_was_killed_is_cleared_by_the_next_one(make_board):
    board = make_board()
    os.kill(board.pid, signal.SIGKILL)
    assert wait_until(lambda: not again(board).running)
    renewed = up(board.name)
    assert renewed.running
    assert len(list_boards()) == 1


def test_off_and_on_again_it_has_its_disk_and_another_boot_id(make_board, holder):
    board = make_board(disk_bytes=32 * MIB)
    before = facts(board, holder)
    board.inside("sh", "-c", "echo kept > /data/file && sync")
    power(board, on=False)
    assert not again(board).running
    board = power(again(board), on=True)
    after = facts(board, holder)
    assert board.inside("cat", "/data/file") == "kept\n"
    assert before.boot_id != after.boot_id
    assert before.machine == after.machine


def test_a_moved_clock(make_board, holder):
    assert facts(make_board(clock_s=-86400.0), holder).time_unix == pytest.approx(time.time() - 86400, abs=60)


def test_a_board_that_is_up_already(make_board):
    board = make_board()
    with pytest.raises(BoardError, match=rf"{board.name} is up already: `edgeseg hil emulate down {board.name}` first"):
        up(board.name)
    assert again(board).running


def test_boards_of_two_runs_share_neither_network_nor_limits(make_board, monkeypatch, tmp_path):
    """Two test runs have base folders of their own, and may take the same name."""
    first = make_board(memory_bytes=256 * MIB)
    power(first, on=False)
    monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path / "other-run"))
    try:
        second = up(first.name, memory_bytes=128 * MIB)
        assert second.number != first.number
        assert second.groups.entrances != first.groups.entrances
        monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path / "boards"))
        assert power(again(first), on=True).running
        down(first.name)
        assert second.running
    finally:
        monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path / "other-run"))
        down(first.name)


def test_the_number_of_a_board_whose_folder_is_gone_is_free_again(monkeypatch, tmp_path):
    monkeypatch.setattr(network, "NUMBERS", tmp_path)
    monkeypatch.setattr(network, "run", lambda *words: "2: eth0 inet 10.77.1.1/30 scope global")
    (tmp_path / "board").mkdir()
    assert network.reserve_number(tmp_path / "board") == 2
    assert network.reserve_number(tmp_path / "board") == 3
    (tmp_path / "board").rmdir()
    assert network.reserve_number(tmp_path / "board") == 2


def test_a_link_on_the_way_to_what_is_hidden_never_leads_to_our_own_files(make_board, monkeypatch, tmp_path):
    """From outside its root, the board's /home/user would be this machine's."""
    real = tmp_path / "real"
    (real / ".ssh").mkdir(parents=True)
    (real / ".ssh" / "id").write_text("ours")
    home = Path("/var/tmp") / f"edgeseg-home-{os.getpid()}"  # on the board too, unlike what is in /tmp
    home.symlink_to(real)
    monkeypatch.setenv("HOME", str(home))
    try:
        make_board()
    finally:
        home.unlink()
    assert (real / ".ssh" / "id").read_text() == "ours"


def test_a_start_that_fails_leaves_no_process(make_board, monkeypatch):
    """Also where no control group tells which processes are the board's."""
    monkeypatch.setattr(limits, "_ROOT", Path("/nowhere"))
    started: list[int] = []

    def no_cable(number: int, pid: int) -> None:
        started.append(pid)
        raise BoardError("no cable")

    monkeypatch.setattr("edgeseg.boards.emulated.starting.connect", no_cable)
    with pytest.raises(BoardError, match="no cable"):
        make_board()
    assert wait_until(lambda: not Path(f"/proc/{started[0]}").exists())
    assert not list_boards()


def test_boards_that_come_and_go_while_they_are_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path))
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "board.json").symlink_to(tmp_path / "nothing")
    assert list_boards() == []
    (gone / "board.json").unlink()
    (gone / "board.json").write_text('{"name": 1}')
    with pytest.raises(BoardError, match=rf"gone/board.json cannot be read as an emulated board .*: remove {gone}"):
        list_boards()


def test_names_engines_and_sizes_that_cannot_be(make_board):
    with pytest.raises(BadInput, match=r"'../x' cannot name a board"):
        up("../x")
    with pytest.raises(BadInput, match=r"unknown engine 'tensorrt', expected one of litert"):
        up("x", without=("tensorrt",))
    with pytest.raises(BadInput, match=r"1048576 bytes of memory are too few for a board, expected at least 32M"):
        up("x", memory_bytes=MIB)
    with pytest.raises(BadInput, match=r"1024 bytes of disk are too few for a board, expected at least 1M"):
        up("x", disk_bytes=1024)
    with pytest.raises(BadInput, match=r"there is no emulated board 'x' \(there is none\)"):
        down("x")


def test_without_control_groups_memory_is_limited_by_process(make_board, holder, monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "_ROOT", tmp_path / "no-groups")
    board = make_board(cpus=0.5, memory_bytes=512 * MIB)
    assert board.limits == "prlimit"
    found = facts(board, holder)
    assert found.emulation == "prlimit"
    assert found.board["cpu_quota"] is None
    transport = open_transport(quick(board), holder)
    assert b"MemoryError" in transport.run([PYTHON, "-c", "bytearray(600 << 20)"], 30).stderr.encode()
    assert transport.run([PYTHON, "-c", "bytearray(100 << 20)"], 30).rc == 0
    transport.close()
    down(board.name)
    assert wait_until(lambda: not Path(f"/proc/{board.pid}").exists())


def test_a_missing_tool_is_named_with_its_package(make_board, monkeypatch):
    monkeypatch.setattr(network.shutil, "which", lambda tool: None if tool.endswith("sshd") else tool)
    with pytest.raises(BoardError, match=r"sshd is not there, .*: apt-get install openssh-server"):
        make_board()


def test_the_command_line(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path))
    name = f"cli{os.getpid()}"
    done = invoke("hil", "emulate", "up", name, "--cpus", "0.5", "--memory", "256M")
    try:
        assert done.exit_code == 0, done.output
        assert f"{name}: up at 10.77." in done.output
        listed = invoke("hil", "emulate", "list").output
        assert name in listed
        assert "256 MiB" in listed
    finally:
        assert invoke("hil", "emulate", "down", name).exit_code == 0
    wrong = invoke("hil", "emulate", "up", name, "--memory", "much")
    assert wrong.exit_code == 2
    assert "'much', expected bytes as in 512M" in wrong.stderr
