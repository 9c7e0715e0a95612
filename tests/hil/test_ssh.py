"""A board over ssh: only the one that was meant, and nothing goes on there without its runner."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import msgspec
import pytest

from edgeseg.boards.emulated.network import run
from edgeseg.boards.emulated.starting import power
from edgeseg.boards.hil.environment import BoardEntry, fingerprint
from edgeseg.boards.hil.ssh_transport import SshTransport
from edgeseg.boards.hil.transport import SILENCE_S, open_transport
from edgeseg.errors import BoardBusy, BoardError, BoardTimeout, BoardUnreachable, WrongHostKey

from .conftest import quick, wait_until
from .test_local_transport import ESCAPE, RUNNER

pytestmark = pytest.mark.hil


@pytest.fixture
def board(make_board):
    return make_board()


def test_commands_and_files(board, holder, tmp_path):
    transport = open_transport(quick(board), holder)
    done = transport.run(["sh", "-c", "hostname; echo 'two words' >&2; exit 4"], 20)
    assert (done.rc, done.stdout.decode().strip(), done.stderr) == (4, board.name, "two words\n")
    (tmp_path / "folder" / "a b").mkdir(parents=True)
    (tmp_path / "folder" / "a b" / "c;d").write_bytes(bytes(range(256)) * 1000)
    transport.put(tmp_path / "folder", "/data/it's", 30)
    transport.get("/data/it's/a b/c;d", tmp_path / "back", 30)
    transport.close()
    assert (tmp_path / "back").read_bytes() == bytes(range(256)) * 1000
    assert wait_until(lambda: not board.strays(), 5), board.strays()


def test_a_wrong_host_key_is_refused_with_both_fingerprints(board, holder, tmp_path):
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    entry = msgspec.structs.replace(quick(board), host_key=other)
    with pytest.raises(WrongHostKey) as caught:
        open_transport(entry, holder)
    assert fingerprint(other) in str(caught.value)
    assert fingerprint(quick(board).host_key) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_key_of_another_kind_is_refused(board, holder, tmp_path):
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "other")
    entry = msgspec.structs.replace(quick(board), host_key=(tmp_path / "other.pub").read_text())
    with pytest.raises(WrongHostKey, match=r"no matching host key type"):
        open_transport(entry, holder)


def test_a_key_that_the_board_does_not_accept(board, holder, tmp_path):
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    with pytest.raises(BoardError, match=r"does not accept the key .*other: add its .pub"):
        open_transport(msgspec.structs.replace(quick(board), key=str(tmp_path / "other")), holder)
    with pytest.raises(BoardError, match=r"the key /nowhere is not there"):
        open_transport(msgspec.structs.replace(quick(board), key="/nowhere"), holder)


def test_what_a_command_says_of_permissions_is_not_said_of_the_key():
    """The connection was lost while a command ran whose stderr is all that there is."""
    entry = BoardEntry(name="b", host="h", user="u", host_key="ssh-ed25519 AAAA", key="k")
    lost = SshTransport(entry)._failed(255, "cat: /etc/shadow: Permission denied\n")
    assert isinstance(lost, BoardUnreachable)
    refused = SshTransport(entry)._failed(255, "u@h: Permission denied (publickey).\n")
    assert "u@h:22 does not accept the key k: add its .pub to ~/.ssh/authorized_keys there" in str(refused)


def test_an_unreachable_board(board, holder):
    with pytest.raises(BoardUnreachable, match=rf"no connection to root@{board.address}:23: .*refused"):
        open_transport(msgspec.structs.replace(quick(board), port=23), holder)
    power(board, on=False)
    with pytest.raises(BoardUnreachable, match=rf"{board.name}: no connection to root@{board.address}:22"):
        open_transport(quick(board), holder)


def test_a_python_that_is_not_on_the_board(board, holder):
    with pytest.raises(BoardError, match=r"/nowhere/python cannot be run on root@"):
        open_transport(msgspec.structs.replace(quick(board), python="/nowhere/python"), holder)


def test_what_ran_too_long_is_gone(board, holder):
    transport = open_transport(quick(board), holder)
    with pytest.raises(BoardTimeout, match=r"took longer than 1 s and was killed there"):
        transport.run([sys.executable, "-c", ESCAPE.replace("SECONDS", "600")], 1)
    assert transport.run(["true"], 20).rc == 0
    transport.close()
    assert wait_until(lambda: not board.strays(), 5), board.strays()


def test_a_killed_runner_leaves_nothing_on_the_board(board, holder):
    entry = quick(board)
    words = [sys.executable, "-c", RUNNER, msgspec.json.encode(entry).decode(), "600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout.readline() == "open\n"
        assert wait_until(lambda: any("sleep" in stray for stray in board.strays()))
        with pytest.raises(BoardBusy, match=rf"{board.name} is in use by run killed-run"):
            open_transport(entry, holder)
        runner.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not board.strays(), 10), board.strays()
    open_transport(entry, holder).close()


def test_a_board_without_its_cable_stops_by_itself(board, holder):
    transport = open_transport(quick(board), holder)
    start = time.monotonic()

    def pull() -> bool:
        board.plug(plugged=False)
        return True

    import threading

    threading.Timer(1.0, pull).start()
    with pytest.raises(BoardUnreachable, match=rf"{board.name}: "):
        transport.run(["sleep", "600"], 590)
    assert time.monotonic() - start < 30
    transport.close()
    assert wait_until(lambda: not board.strays(), SILENCE_S + 10), board.strays()
    board.plug(plugged=True)
    again = open_transport(quick(board), holder)
    assert again.run(["true"], 20).rc == 0
    again.close()
