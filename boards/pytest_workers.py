"""Which worker of pytest-xdist runs what: all tests of a board are one worker's, so that the board is held once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest


def board_scheduling(config: pytest.Config, log: Any, boards: Sequence[str]) -> Any:
    """A scheduling of pytest-xdist that keeps the tests of a board together; others go as --dist says.

    The mark xdist_group is not enough: with pytest 9.2 pytest-xdist 3.8 does not see it (its issue 1386).
    """
    from xdist import scheduler

    kinds = {"loadscope": scheduler.LoadScopeScheduling, "loadfile": scheduler.LoadFileScheduling}
    scheduling = kinds.get(config.getoption("dist"), scheduler.LoadGroupScheduling)(config, log)
    otherwise = scheduling._split_scope

    def scope(nodeid: str) -> str:
        board = board_of(nodeid, boards)
        return f"board {board}" if board else str(otherwise(nodeid))

    scheduling._split_scope = scope
    return scheduling


def board_of(nodeid: str, boards: Sequence[str]) -> str:
    """The board in the parameters of a test's id, the longest name where several fit; "" where there is none."""
    found = re.search(r"\[(.*)\]", nodeid)
    words = f"-{found[1]}-" if found else ""
    return max((name for name in boards if f"-{name}-" in words), key=len, default="")
