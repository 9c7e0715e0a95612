"""The pytest plugin: boards and bundles as fixtures, limits as marks. docs/pytest.md describes it.

It is loaded by every pytest where edgeseg is installed, so what costs anything is imported when boards were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgeseg.boards.hil.board_under_test import BoardUnderTest
    from edgeseg.boards.pytest_session import BoardSession

NAME = "edgeseg-boards"
WHICH_BOARD = "which board? --edgeseg-board NAME, or --edgeseg-env FILE"
WHICH_BUNDLE = "which bundle? --edgeseg-bundle PATH"
_OPTIONS = (
    ("board", "NAME", "args", "A board of --edgeseg-env, an emulated one, or local; repeatable."),
    ("env", "FILE", "paths", "The boards of a lab, TOML: see docs/hil.md."),
    ("bundle", "PATH", "paths", "A bundle for the fixture edgeseg_bundle; repeatable."),
    ("station", "FOLDER", "paths", "Where the station record goes; a new folder in station by default."),
    ("wait", "SECONDS", "string", "How long a board that another runner has is waited for; 0 by default."),
)
_MARKERS = (
    "edgeseg_limits(p99_ms, fps, dice, ...): what bundles are held to in a test, in place of the board's limits",
    "edgeseg_measures(bench_rounds, soak_minutes, ...): what is measured in a test, in place of the board's measures",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each of them also a key of the ini file."""
    group = parser.getgroup("edgeseg", "bundles on boards (edgeseg)")
    for name, metavar, kind, what in _OPTIONS:
        repeatable = name in ("board", "bundle")
        group.addoption(
            f"--edgeseg-{name}",
            action="append" if repeatable else "store",
            type=float if name == "wait" else str,
            metavar=metavar,
            help=what,
        )
        # pytest types the kinds as literals.
        parser.addini(f"edgeseg_{name}", f"{what} The option takes its place.", kind)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    """Choose boards and bundles, where any were asked for."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)
    if not _given(config, "board") and not _given(config, "env"):
        if config.getoption("edgeseg_bundle"):
            raise pytest.UsageError(WHICH_BOARD)
        return
    from edgeseg.boards.pytest_session import Choice, begin

    env, station, wait = (_given(config, name) for name in ("env", "station", "wait"))
    choice = Choice(
        boards=_given(config, "board"),
        env=Path(env[0]) if env else None,
        bundles=tuple(Path(path) for path in _given(config, "bundle")),
        station=Path(station[0]) if station else None,
        wait_s=_seconds(wait),
    )
    config.pluginmanager.register(begin(config, choice), NAME)


@pytest.fixture(scope="session")
def edgeseg_board(request: pytest.FixtureRequest) -> Iterator[BoardUnderTest]:
    """A board, held by this session alone from the first to the last test that uses it; a test for each board."""
    session = board_session(request.config)
    if session is None:
        pytest.skip(WHICH_BOARD)
    board = session.take(request.param)
    yield board
    board.close()


@pytest.fixture(scope="session")
def edgeseg_bundle(request: pytest.FixtureRequest) -> Path:
    """The path of a bundle to prove; a test for each bundle."""
    if board_session(request.config) is None:
        pytest.skip(WHICH_BOARD)
    if not hasattr(request, "param"):
        pytest.fail(WHICH_BUNDLE, pytrace=False)
    path: Path = request.param
    return path


def board_session(config: pytest.Config) -> BoardSession | None:
    """What this session has on boards; None where none was chosen."""
    session: BoardSession | None = config.pluginmanager.get_plugin(NAME)
    return session


def _seconds(words: tuple[str, ...]) -> float:
    try:
        return float(words[0]) if words else 0.0
    except ValueError as error:
        raise pytest.UsageError(f"edgeseg_wait is {words[0]!r}, expected seconds") from error


def _given(config: pytest.Config, name: str) -> tuple[str, ...]:
    """What was asked for on the command line, else in the ini file."""
    option = config.getoption(f"edgeseg_{name}")
    found = config.getini(f"edgeseg_{name}") if option is None else option
    words = found if isinstance(found, list) else [found]
    return tuple(str(word) for word in words if word not in (None, ""))
