"""Building an aarch64 board: what is there already and still right is kept, and half a board is never used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

import edgeseg
from edgeseg.boards.aarch64 import debian, wheels
from edgeseg.boards.aarch64.board import PYTHON, RECORD, Aarch64Board, Record, Wheel
from edgeseg.boards.aarch64.cores import DEFAULT_CORE, core, write_cores
from edgeseg.boards.aarch64.tools import PROGRAMS, QEMU, call, require
from edgeseg.errors import BoardBusy, BoardError

_SCHEMA = 1
_CPUS = 2
_ANSWER_S = 120.0
_PROBE = "import platform, edgeseg, numpy, cv2; print(platform.machine())"

Say = Callable[[str], object]


def build(folder: Path, core_name: str = DEFAULT_CORE, say: Say = lambda line: None) -> Aarch64Board:
    """Build a board, or bring the one that is there up to date.

    The first time, 30 MB of Debian and 150 MB of wheels are downloaded; with a board that is right already, nothing is,
    and it takes a second. The board runs the edgeseg that this is, from where it lies.

    Args:
        folder: for all of it, 0.6 GB.
        core_name: the cores that it has, one of CORES.
        say: is told of each step that is done.

    Raises:
        BadInput: a core that it cannot have.
        BoardBusy: where another process builds there.
        BoardError: where a program is missing, a download fails, or the board does not run; then there is no board.
    """
    cores = core(core_name)
    require(*PROGRAMS)
    board = Aarch64Board(folder)
    wanted = wheels.requirements()
    with _alone(board.folder):
        before = board.record
        (board.folder / RECORD).unlink(missing_ok=True)
        versions = _root(board, before, say)
        fetched = _site(board, before, wanted, say)
        _face(board, core_name)
        write_cores(board.root, cores, _CPUS)
        _write(board.root / "etc/edgeseg-emulated", f"qemu-user, {core_name}\n".encode())
        _check(board)
        record = Record(
            schema=_SCHEMA,
            suite=debian.SUITE,
            packages=debian.PACKAGES,
            versions=versions,
            requirements=wanted,
            wheels=fetched,
            core=core_name,
            qemu=call(QEMU, [QEMU, "--version"], _ANSWER_S).splitlines()[0],
        )
        _write(board.folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2))
    return board


def _root(board: Aarch64Board, before: Record | None, say: Say) -> dict[str, str]:
    if before and (before.schema, before.suite, before.packages) == (_SCHEMA, debian.SUITE, debian.PACKAGES):
        return before.versions
    say(f"Debian {debian.SUITE} for arm64: {', '.join(debian.PACKAGES)}")
    return debian.unpack(board.root)


def _site(board: Aarch64Board, before: Record | None, wanted: tuple[str, ...], say: Say) -> tuple[Wheel, ...]:
    known = before.wheels if before and before.requirements == wanted else ()
    if known and (board.site / "edgeseg").exists():
        return known
    say(f"aarch64 wheels: {', '.join(wanted)}")
    fetched = wheels.fetch(wanted, known, board.wheels)
    wheels.install(fetched, board.wheels, board.site)
    return fetched


def _face(board: Aarch64Board, core_name: str) -> None:
    """What makes the folder a virtual environment whose interpreter is a script: its children are the board's too."""
    link = board.site / "edgeseg"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(edgeseg.__file__).resolve().parent)
    _write(board.folder / "pyvenv.cfg", f"home = {board.root}/usr/bin\ninclude-system-site-packages = false\n".encode())
    shutil.rmtree(board.python.parent, ignore_errors=True)
    board.python.parent.mkdir()
    emulator = [shutil.which(QEMU) or QEMU, "-cpu", core_name, "-L", str(board.root), "-0", str(board.python)]
    _script(board.python, [*emulator, f"{board.root}/usr/bin/{PYTHON}"])
    _script(board.edgeseg, [str(board.python), "-m", "edgeseg.cli"])


def _script(path: Path, command: list[str]) -> None:
    _write(path, f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'.encode())
    path.chmod(0o755)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _check(board: Aarch64Board) -> None:
    said = call("the board's Python", [str(board.python), "-I", "-c", _PROBE], _ANSWER_S).strip()
    if said != "aarch64":
        raise BoardError(f"the board's Python says that it is on {said!r}, expected aarch64")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BoardBusy(f"another process builds the board in {folder}: wait for it") from None
    finally:
        os.close(descriptor)
