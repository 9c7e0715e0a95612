"""Where an aarch64 board lies and what is on it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeseg.errors import BoardError

RECORD = "board.json"
PYTHON = "python3.11"
PROGRAMS = ("python", "edgeseg")


class Wheel(msgspec.Struct, frozen=True):
    """A wheel as it was downloaded: its file name and the SHA-256 of its bytes."""

    file: str
    sha256: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is on a board. It is written last, so that a board that has one is whole.

    Attributes:
        schema: of this file.
        suite: of Debian.
        packages: of Debian that were asked for.
        versions: of every Debian package that is there, by name.
        requirements: what pip was asked for.
        wheels: what that came to.
        core: by qemu's name.
        qemu: its version.
    """

    schema: int
    suite: str
    packages: tuple[str, ...]
    versions: dict[str, str]
    requirements: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    core: str
    qemu: str


class Aarch64Board:
    """A board in a folder, whether it is there or still to be built.

    Attributes:
        folder: all of it.
        root: Debian's files. Paths of the board are looked for there first, then on this machine.
        site: the packages of Python.
        wheels: as they were downloaded, for the next build.
        python, edgeseg: programs that run here and are the board's. `edgeseg` takes the arguments of `edgeseg`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.root = self.folder / "root"
        self.site = self.folder / "lib" / PYTHON / "site-packages"
        self.wheels = self.folder / "wheels"
        self.python, self.edgeseg = (self.folder / "bin" / program for program in PROGRAMS)

    @property
    def record(self) -> Record | None:
        """What is on it; None where it is not whole."""
        try:
            return msgspec.json.decode((self.folder / RECORD).read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None


def open_board(folder: Path) -> Aarch64Board:
    """A board that was built. Raises BoardError where there is none, or half of one."""
    board = Aarch64Board(folder)
    if board.record is None:
        raise BoardError(f"{folder} has no whole aarch64 board: `python -m edgeseg.boards.aarch64 build {folder}`")
    return board
