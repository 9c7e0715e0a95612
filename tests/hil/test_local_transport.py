"""Commands on a board end with their time, their runner or their connection, whatever they do to get away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeseg.boards.hil.transport import open_transport
from edgeseg.errors import BoardBusy, BoardError, BoardTimeout, BoardUnreachable

from .conftest import wait_until

# Detached twice, and in a session of its own: nothing but its ancestors knows of it.
ESCAPE = (
    "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  time.sleep(SECONDS)\ntime.sleep(600)"
)


def running(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(marker.encode() in word for word in words) and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def test_a_command_gives_its_code_output_time_and_files(local, holder, tmp_path):
    (tmp_path / "result.json").write_text('{"a": "ä"}')
    files = [str(tmp_path / "result.json"), str(tmp_path / "none")]
    transport = open_transport(local, holder)
    done = transport.run(["sh", "-c", "printf out; printf err >&2; exit 3"], 10, files)
    transport.close()
    assert (done.rc, done.stdout, done.stderr) == (3, b"out", "err")
    assert 0 < done.seconds < 5
    assert list(done.files.values()) == ['{"a": "ä"}', None]


def test_a_command_killed_by_a_signal_says_so(local, holder):
    transport = open_transport(local, holder)
    assert transport.run(["sh", "-c", "kill -9 $$"], 10).rc == -9
    transport.close()


def test_a_command_that_is_not_there(local, holder):
    transport = open_transport(local, holder)
    with pytest.raises(BoardError, match=r"local: no-such-command cannot be run there: No such file or directory"):
        transport.run(["no-such-command"], 10)
    transport.close()


def test_what_a_command_started_ends_with_its_time(local, holder):
    marker = "600.0417"
    transport = open_transport(local, holder)
    start = time.monotonic()
    with pytest.raises(BoardTimeout, match=r"took longer than 1 s and was killed there"):
        transport.run([sys.executable, "-c", ESCAPE.replace("SECONDS", marker)], 1)
    assert time.monotonic() - start < 10
    assert not running(marker)
    transport.close()


def test_what_a_command_left_behind_ends_with_it(local, holder):
    marker = "600.0418"
    transport = open_transport(local, holder)
    assert transport.run(["sh", "-c", f"setsid sleep {marker} > /dev/null 2>&1 & exit 0"], 10).rc == 0
    assert not running(marker)
    transport.close()


def test_what_forks_while_it_is_killed_ends_too(local, holder):
    """Children that come between two looks at /proc are ours to kill as well: the guard must not wait for their end."""
    marker = "77.0421"
    forks = (
        f"import os, time\nfor _ in range(300):\n os.fork() or time.sleep({marker}) or os._exit(0)\n time.sleep(.002)"
    )
    transport = open_transport(local, holder)
    for seconds in (0.3, 0.35, 0.4):
        start = time.monotonic()
        with pytest.raises(BoardTimeout, match=r"was killed there"):
            transport.run([sys.executable, "-S", "-c", forks], seconds)
        assert time.monotonic() - start < 8
        assert not running(marker)
    transport.close()


@pytest.mark.parametrize("new", [False, True], ids=["removed", "replaced"])
def test_a_lease_whose_file_is_lost_is_no_lease(local, holder, monkeypatch, new):
    """The next runner makes a file of its own and locks that: two would have the board."""
    monkeypatch.setattr("edgeseg.boards.hil.piped.BEAT_S", 0.05)
    transport = open_transport(local, holder)
    Path(local.lease).unlink()
    if new:
        Path(local.lease).touch()

    def lost() -> bool:
        try:
            transport.run(["true"], 10)
        except BoardUnreachable as error:
            words = f"local: the connection that holds this machine has ended: the lease file {local.lease} was removed"
            return str(error).startswith(words)
        return False

    assert wait_until(lost)
    with pytest.raises(BoardUnreachable, match="the connection that holds this machine has ended"):
        transport.put(Path(__file__), f"{local.work}/x", 10)
    transport.close()
    open_transport(local, holder).close()


def test_what_runs_while_the_lease_is_lost_does_not_count(local, holder, monkeypatch):
    monkeypatch.setattr("edgeseg.boards.hil.piped.BEAT_S", 0.05)
    transport = open_transport(local, holder)
    with pytest.raises(BoardUnreachable, match="the connection that holds this machine has ended"):
        transport.run(["sh", "-c", f"rm {local.lease}; sleep 1"], 30)
    transport.close()


RUNNER = """
import sys, msgspec
from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.boards.hil.transport import Holder, open_transport
entry = msgspec.json.decode(sys.argv[1], type=BoardEntry)
transport = open_transport(entry, Holder("killed-run", "u", "h", 7, "t"))
print("open", flush=True)
transport.run(["sleep", sys.argv[2]], 600)
"""


def test_a_killed_runner_leaves_nothing_and_gives_the_board_back(local, holder):
    import msgspec

    marker = "600.0419"
    words = [sys.executable, "-c", RUNNER, msgspec.json.encode(local).decode(), marker]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout.readline() == "open\n"
        assert wait_until(lambda: len(running(f"sleep\0{marker}".split("\0")[1])) >= 2)
        with pytest.raises(BoardBusy, match=r"local is in use by run killed-run \(u@h, process 7, since t\)"):
            open_transport(local, holder)
        runner.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not running(marker), 10)
    open_transport(local, holder).close()


def test_a_board_that_hears_nothing_ends_the_command_by_itself(local, holder, monkeypatch):
    """The runner is there, the connection is open, and nothing comes over it."""
    marker = "600.0420"
    transport = open_transport(local, holder)
    monkeypatch.setattr("edgeseg.boards.hil.piped.SILENCE_S", 1.0)
    monkeypatch.setattr("edgeseg.boards.hil.piped.BEAT_S", 100.0)
    with pytest.raises(BoardUnreachable, match=r"the connection was silent for too long"):
        transport.run(["sleep", marker], 60)
    assert not running(marker)
    transport.close()


def test_a_folder_arrives_whole_in_place_of_the_one_before(local, holder, tmp_path):
    source, target = tmp_path / "source", tmp_path / "board" / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a").write_bytes(os.urandom(300_000))
    (source / "b").write_bytes(b"")
    (target / "old").mkdir(parents=True)
    transport = open_transport(local, holder)
    transport.put(source, str(target), 30)
    transport.put(source / "deep" / "a", str(tmp_path / "board" / "one"), 30)
    transport.get(str(target / "deep" / "a"), tmp_path / "back", 30)
    transport.close()
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*")) == ["b", "deep", "deep/a"]
    assert (tmp_path / "back").read_bytes() == (source / "deep" / "a").read_bytes()
    assert sorted(p.name for p in (tmp_path / "board").iterdir()) == ["one", "target"]


def test_a_file_that_cannot_be_written_or_read(local, holder, tmp_path):
    (tmp_path / "file").write_text("x")
    transport = open_transport(local, holder)
    with pytest.raises(BoardError, match=r"file cannot be written to /proc/nowhere/file: "):
        transport.put(tmp_path / "file", "/proc/nowhere/file", 30)
    with pytest.raises(BoardError, match=r"/nowhere cannot be read: .*No such file"):
        transport.get(str(tmp_path / "nowhere"), tmp_path / "back", 30)
    transport.close()
    assert not (tmp_path / "back").exists()


def test_an_upload_that_breaks_off_leaves_the_old_file(local, holder, tmp_path):
    """The receiver is told of more than comes, as when a runner dies in the middle."""
    import json

    from edgeseg.boards.hil.transport import script

    target = tmp_path / "target"
    target.write_text("old")
    request = {
        "target": str(target),
        "folder": False,
        "files": [{"path": "x", "size": 9}],
        "sha256": "",
        "silence_s": 5,
    }
    words = [sys.executable, "-I", "-S", "-c", script("receive"), json.dumps(request)]
    done = subprocess.run(words, input=b"new", capture_output=True, check=True)
    assert "the connection ended before all had arrived" in done.stdout.decode()
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_a_lease_that_cannot_be_written(local, holder, tmp_path):
    import msgspec

    with pytest.raises(BoardError, match=r"the lease cannot be taken, .*/nowhere/lease: No such file"):
        open_transport(msgspec.structs.replace(local, lease=str(tmp_path / "nowhere" / "lease")), holder)


def test_a_lease_is_no_way_to_another_file(local, holder, tmp_path):
    import msgspec

    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(BoardError, match=r"the lease cannot be taken"):
        open_transport(msgspec.structs.replace(local, lease=str(tmp_path / "link")), holder)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_shell_that_greets(local, holder, tmp_path):
    import msgspec

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho Welcome to cart 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(
        BoardError, match=r"local: this machine said 'Welcome to cart 1' before the answer: let its shell"
    ):
        open_transport(msgspec.structs.replace(local, python=str(python)), holder)


def test_no_python_on_the_board(local, holder):
    import msgspec

    with pytest.raises(BoardError, match=r"/nowhere/python cannot be started: No such file"):
        open_transport(msgspec.structs.replace(local, python="/nowhere/python"), holder)
