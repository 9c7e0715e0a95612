"""The board that the tests share: built once, in build/aarch64, or where $EDGESEG_AARCH64 says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.boards.aarch64.board import Aarch64Board
from edgeseg.boards.aarch64.build import build
from edgeseg.boards.aarch64.tools import PROGRAMS, require
from edgeseg.errors import BoardError

REPOSITORY = Path(__file__).parents[2]
RUN_S = 400

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def board() -> Aarch64Board:
    """It stays when the tests are over: built again, it takes a second.

    Where a program is missing that is a failure in CI, and a skip elsewhere.
    """
    try:
        require(*PROGRAMS)
    except BoardError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return build(Path(os.environ.get("EDGESEG_AARCH64") or REPOSITORY / "build" / "aarch64"))


@pytest.fixture(scope="session")
def call(board: Aarch64Board) -> Call:
    """Run python or edgeseg on the board."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(board.folder / "bin" / program), *(str(a) for a in arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=RUN_S, cwd=REPOSITORY, check=False)

    return run
