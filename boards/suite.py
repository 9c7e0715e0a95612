"""The test that nobody has to write: every bundle on every board.

pytest --pyargs edgeseg.boards.suite --edgeseg-env lab.toml --edgeseg-bundle head.edgeseg
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.boards.hil.board_under_test import BoardUnderTest
from edgeseg.boards.pytest_plugin import WHICH_BOARD, WHICH_BUNDLE, board_session


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse to pass without a board or a bundle."""
    if board_session(metafunc.config) is None:
        raise pytest.Collector.CollectError(WHICH_BOARD)
    if not metafunc.config.getoption("edgeseg_bundle") and not metafunc.config.getini("edgeseg_bundle"):
        raise pytest.Collector.CollectError(WHICH_BUNDLE)


def test_bundle(edgeseg_board: BoardUnderTest, edgeseg_bundle: Path) -> None:
    """Deploy, verify, warm up, bench, soak, by the limits of the environment."""
    edgeseg_board.prove(edgeseg_bundle)
