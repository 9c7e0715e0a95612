"""Emulated boards go up and down: what is made for one, and how all of it goes away again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

import edgeseg
from edgeseg.boards.emulated import first_process
from edgeseg.boards.emulated.board import EmulatedBoard, base_folder, board, list_boards, started
from edgeseg.boards.emulated.limits import groups, make_groups
from edgeseg.boards.emulated.network import (
    NUMBERS,
    check_tools,
    connect,
    disconnect,
    release_number,
    reserve_number,
    run,
)
from edgeseg.durable import write_file
from edgeseg.errors import BadInput, BoardError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_UP_WITHIN_S = 15.0
_LEAST_MEMORY, _LEAST_DISK = 32 << 20, 1 << 20  # for an sshd and Python; for a file system
_HIDES = ("tmp", "run")
_SSHD = """\
Port 22
HostKey /etc/ssh/edgeseg_host_key
AuthorizedKeysFile /etc/ssh/edgeseg_client_pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
"""
# What each engine's distributions put into site-packages.
_PARTS = {
    "litert": ("ai_edge_litert", "tflite_runtime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}


def check_possible() -> None:
    """Raise BoardError where no board can be started: this is not root, or a tool is missing."""
    _check_root()
    check_tools()


def up(
    name: str,
    *,
    cpus: float | None = None,
    memory_bytes: int | None = None,
    disk_bytes: int | None = None,
    without: Sequence[str] = (),
    clock_s: float = 0.0,
) -> EmulatedBoard:
    """Start a board, in place of one of that name which is not running any more.

    Raises BadInput for a name, an engine or a size that cannot be, BoardError where one of that name runs, a tool is
    missing or this is not root.
    """
    _check(name, without)
    _check_size("memory", memory_bytes, _LEAST_MEMORY)
    _check_size("disk", disk_bytes, _LEAST_DISK)
    check_possible()
    with _locked():
        old = next((board for board in list_boards() if board.name == name), None)
        if old and old.running:
            raise BoardError(f"the emulated board {name} is up already: `edgeseg hil emulate down {name}` first")
        if old:
            _remove(old)
        board = EmulatedBoard(
            name=name,
            number=reserve_number(base_folder() / name),
            cpus=cpus,
            memory_bytes=memory_bytes,
            disk_bytes=disk_bytes,
            without=tuple(without),
            clock_s=clock_s,
        )
        try:
            _prepare(board)
            return _start(board)
        except BaseException:
            _remove(board)
            raise


def down(name: str) -> None:
    """Kill all of a board and remove what it was, running or not.

    Raises BadInput where there is none of that name, BoardError where this is not root.
    """
    _check_root()
    with _locked():
        _remove(board(name))


def power(board: EmulatedBoard, *, on: bool) -> EmulatedBoard:
    """Switch a board off as by its plug, or on again with the disk that it had. Raises BoardError as `up`."""
    if on:
        return _start(board)
    _kill(board)
    return board


def _check_root() -> None:
    if os.geteuid():
        raise BoardError("an emulated board needs namespaces and control groups: run this as root")


def _check_size(what: str, count: int | None, least: int) -> None:
    if count is not None and count < least:
        raise BadInput(f"{count} bytes of {what} are too few for a board, expected at least {least >> 20}M")


def _check(name: str, without: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot name a board, expected small letters, digits and hyphens, a letter first")
    for engine in without:
        if engine not in _PARTS:
            raise BadInput(f"unknown engine {engine!r}, expected one of {', '.join(_PARTS)}")


@contextmanager
def _locked() -> Iterator[None]:
    """One at a time on this machine: boards of other base folders have numbers and control groups here too."""
    NUMBERS.mkdir(exist_ok=True)
    descriptor = os.open(NUMBERS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(board: EmulatedBoard) -> None:
    shutil.rmtree(board.folder, ignore_errors=True)
    (board.folder / "root").mkdir(parents=True, mode=0o700)
    _write(board)
    for name in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name} of {board.name}", "-f", board.folder / name)
    if board.disk_bytes:
        disk = board.folder / "disk"
        with disk.open("wb") as stream:
            stream.truncate(board.disk_bytes)
        run("mkfs.ext4", "-q", "-m", "0", "-F", disk)


def _write_config(board: EmulatedBoard, limits: str) -> None:
    prlimit = board.memory_bytes if limits == "prlimit" else None
    config = {
        "name": board.name,
        "folder": str(board.folder),
        "root": str(board.folder / "root"),
        "disk": str(board.folder / "disk") if board.disk_bytes else "",
        "kept": _kept(),
        "hidden": _hidden(board.without),
        "prlimit_bytes": prlimit or 0,
        "files": {**_files(board), "/etc/edgeseg-emulated": f"{limits}\n"},
    }
    (board.folder / "config.json").write_bytes(msgspec.json.encode(config))


def _files(board: EmulatedBoard) -> dict[str, str]:
    files = {
        "/etc/hostname": f"{board.name}\n",
        # What a shell of this machine does first is not the board's time.
        "/root/.bashrc": "",
        "/etc/machine-id": f"{_machine_id(board)}\n",
        "/etc/ssh/edgeseg_sshd": _SSHD,
        "/etc/ssh/edgeseg_host_key": (board.folder / "host").read_text(encoding="ascii"),
        "/etc/ssh/edgeseg_client_pub": (board.folder / "client.pub").read_text(encoding="ascii"),
    }
    if board.clock_s:
        # A clock of its own is in no namespace: Python's is moved instead.
        # Some folders are site folders twice.
        once = "time.time if time.time.__name__ == '<lambda>' else"
        line = f"import time; time.time = {once} lambda true=time.time: true() + {board.clock_s!r}\n"
        files[f"{sysconfig.get_path('purelib')}/edgeseg_emulated_clock.pth"] = line
    return files


def _machine_id(board: EmulatedBoard) -> str:
    """The same after the next start, and another for the next board of that name."""
    return hashlib.sha256((board.folder / "host.pub").read_bytes()).hexdigest()[:32]


def _kept() -> list[str]:
    """Folders of Python and edgeseg that the board's root would not show: other file systems, and what is hidden."""
    source = Path(edgeseg.__file__).parents[1]
    wanted = dict.fromkeys(map(str, (Path(sys.base_prefix), Path(sys.prefix), source)))
    device = Path("/").stat().st_dev
    return [
        path for path in wanted if Path(path).stat().st_dev != device or Path(path).parts[1:2] in [(h,) for h in _HIDES]
    ]


def _hidden(without: Sequence[str]) -> list[str]:
    site = Path(sysconfig.get_path("purelib"))
    found = [str(path) for path in (Path.home() / ".ssh",) if path.exists()]
    return found + [str(path) for engine in without for part in _PARTS[engine] for path in site.glob(f"{part}*")]


def _write(board: EmulatedBoard) -> None:
    write_file(board.folder / "board.json", msgspec.json.encode(board))


def _start(board: EmulatedBoard) -> EmulatedBoard:
    made = make_groups(board.number)
    made.set_cpus(board.cpus)
    made.set_memory(board.memory_bytes)
    _write_config(board, made.kind)
    pid_file, log = board.folder / "pid", board.folder / "log"
    pid_file.unlink(missing_ok=True)
    # A shell that enters the groups and becomes what holds the namespaces: nothing of the board is ever outside.
    script = (
        'pid=$1 log=$2; shift 2; while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; '
        'echo $$ > "$pid.new" && mv "$pid.new" "$pid"; exec "$@" < /dev/null > "$log" 2>&1'
    )
    spaces = ("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child")
    first = (sys.executable, "-I", "-S", first_process.__file__, board.folder / "config.json")
    run("setsid", "--fork", "sh", "-c", script, "sh", pid_file, log, *made.entrances, "--", *spaces, *first)
    pid = _read_pid(pid_file, board)
    board = msgspec.structs.replace(board, pid=pid, started=started(pid) or 0, limits=made.kind)
    _write(board)
    try:
        _wait_until_apart(board)
        connect(board.number, pid)
        _wait_for_sshd(board)
    except BaseException:
        _kill(board)  # the caller's board does not know of the process
        raise
    return board


def _read_pid(path: Path, board: EmulatedBoard) -> int:
    for _ in _until_up():
        if path.exists():
            return int(path.read_text(encoding="ascii"))
    raise BoardError(f"the emulated board {board.name} did not start: {_last_words(board)}")


def _wait_until_apart(board: EmulatedBoard) -> None:
    """Until the process has its own network: an interface that came before would stay here."""
    ours = Path("/proc/self/ns/net").readlink()
    for _ in _until_up():
        try:
            if Path(f"/proc/{board.pid}/ns/net").readlink() != ours:
                return
        except OSError:
            break
    raise BoardError(f"the emulated board {board.name} did not start: {_last_words(board)}")


def _wait_for_sshd(board: EmulatedBoard) -> None:
    for _ in _until_up():
        try:
            socket.create_connection((board.address, 22), timeout=0.5).close()
        except OSError:
            if board.running:
                continue
            break
        return
    raise BoardError(f"the emulated board {board.name} did not start its sshd: {_last_words(board)}")


def _until_up() -> Iterator[None]:
    end_s = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < end_s:
        yield
        time.sleep(0.02)


def _last_words(board: EmulatedBoard) -> str:
    try:
        lines = (board.folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def _kill(board: EmulatedBoard) -> None:
    """Kill what holds the namespaces: the kernel kills process 1 with it, and with that all others."""
    if board.running:
        os.kill(board.pid, signal.SIGKILL)
    made = groups(board.number)
    for _ in _until_up():
        left = made.processes()
        if not left and not board.running:
            break
        for pid in left:
            _kill_one(pid)
    disconnect(board.number)


def _kill_one(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _remove(board: EmulatedBoard) -> None:
    _kill(board)
    groups(board.number).remove()
    shutil.rmtree(board.folder, ignore_errors=True)
    release_number(board.number)
