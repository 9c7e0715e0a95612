"""A pytest session that has boards: a test for each of them, one line for what goes wrong there, one station record."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from edgeseg.boards.hil.board_under_test import BoardUnderTest, CurrentTest
from edgeseg.boards.hil.bundle_run import ERROR, FAILED, PASSED
from edgeseg.boards.hil.bundles import Candidate, read_candidate
from edgeseg.boards.hil.choosing import chosen_boards
from edgeseg.boards.hil.environment import BoardEntry, Limits, Measures
from edgeseg.boards.hil.harness import JUNIT, RunOptions, about, new_holder
from edgeseg.boards.hil.held_board import HeldBoard
from edgeseg.boards.hil.junit import write_junit
from edgeseg.boards.hil.station import RECORD, Station, read_record
from edgeseg.boards.profile_check import check_tables, plain
from edgeseg.errors import BadInput, BoardError, EdgesegError

_BOARD, _BUNDLE = "edgeseg_board", "edgeseg_bundle"
_DEFAULT = Path("station")
_WORKERS = {"run": "edgeseg_run", "record": "edgeseg_record"}
_log = logging.getLogger("edgeseg.hil")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for.

    Attributes:
        boards, env: as of `edgeseg hil run`.
        bundles: paths.
        station: folder of the record; None for a new one.
        wait_s: for another runner to give a board back.
    """

    boards: tuple[str, ...]
    env: Path | None
    bundles: tuple[Path, ...]
    station: Path | None
    wait_s: float


def begin(config: pytest.Config, choice: Choice) -> BoardSession:
    """Look at boards and bundles; nothing is connected yet. Raises UsageError in one line."""
    if config.getoption("dist", "no") == "each":
        raise pytest.UsageError("--dist each would give every board to every worker, expected -n N alone")
    try:
        entries = chosen_boards(choice.boards, choice.env)
        candidates = [read_candidate(path) for path in choice.bundles]
    except EdgesegError as error:
        raise pytest.UsageError(str(error)) from error
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise pytest.UsageError("two bundles have the same name: a record could not tell them apart, rename one")
    session = BoardSession(config, entries, {candidate.path: candidate for candidate in candidates}, choice)
    if choice.station and session.path.exists() and not config.option.collectonly and not session.worker:
        raise pytest.UsageError(f"{session.path} is there already: choose another --edgeseg-station")
    return session


class BoardSession:
    """The plugin of a session that has boards.

    Attributes:
        path: of the station record.
        worker: what pytest-xdist told this process, if it is one of its workers.
    """

    def __init__(
        self, config: pytest.Config, entries: Sequence[BoardEntry], candidates: dict[Path, Candidate], choice: Choice
    ) -> None:
        self.worker: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._entries = {entry.name: entry for entry in entries}
        self._candidates = candidates
        self._options = RunOptions(wait_s=choice.wait_s)
        self._holder = new_holder(self.worker[_WORKERS["run"]] if self.worker else None)
        folder = choice.station or _DEFAULT / self._holder.run
        self.path = Path(self.worker[_WORKERS["record"]]) if self.worker else (folder / RECORD).absolute()
        self._station: Station | None = None
        self._boards: dict[str, BoardUnderTest] = {}
        self._problem = ""
        self._current = CurrentTest()
        self._ended: dict[str, tuple[str, str, float]] = {}
        self._full_traces = config.option.fulltrace or config.option.tbstyle in ("long", "native")

    def take(self, name: str) -> BoardUnderTest:
        """Take a board for the tests that want it. Raises EdgesegError where it cannot be had."""
        held = HeldBoard(self._entries[name], self._holder, self._record(), self._options, say=_say)
        self._boards[name] = board = BoardUnderTest(held, self._candidates, lambda: self._current)
        board.begin()
        return board

    def pytest_report_header(self) -> str:
        """Say which boards and bundles there are."""
        names = ", ".join(candidate.name for candidate in self._candidates.values())
        return f"edgeseg: on {', '.join(self._entries)}: {names or 'no bundle'}"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Check the marks, and make a test for each board and bundle.

        Raises CollectError: a UsageError would be the end of a worker.
        """
        try:
            _asked(metafunc.definition)
        except BadInput as error:
            raise pytest.Collector.CollectError(str(error)) from error
        if _BOARD in metafunc.fixturenames:
            metafunc.parametrize(_BOARD, list(self._entries), ids=list(self._entries), indirect=True, scope="session")
        if _BUNDLE in metafunc.fixturenames and self._candidates:
            bundles = [pytest.param(path, id=candidate.name) for path, candidate in self._candidates.items()]
            metafunc.parametrize(_BUNDLE, bundles, indirect=True, scope="session")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests of each board together, after those that need none."""
        order = {name: number for number, name in enumerate(self._entries, 1)}
        items.sort(key=lambda item: order.get(_board_of(item), 0))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note what the test asks for. Raises what its board was given up for."""
        self._current = _asked(item)
        board = self._boards.get(_board_of(item))
        if board and board.given_up:
            raise board.given_up

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """What goes wrong on a board is one line, and on record."""
        board = _board_of(item)
        if board and call.when == "call":
            figures = [figure for proof in self._current.proofs for figure in proof.figures().items()]
            item.user_properties += [(f"edgeseg_{name}", value) for name, value in figures]
        report = yield
        if not board:
            return report
        expected = BoardError if call.when == "call" else EdgesegError
        if call.excinfo and call.excinfo.errisinstance(expected) and report.failed and not self._full_traces:
            _shorten(report, call.excinfo)
        self._note(item, report, board)
        return report

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist which run it is of, and where the record is."""
        node.workerinput |= {_WORKERS["run"]: self._holder.run, _WORKERS["record"]: str(self.path)}

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Give all tests of a board to one worker."""
        from edgeseg.boards.pytest_workers import board_scheduling

        return board_scheduling(config, log, list(self._entries))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        """Begin the record before any worker has a test."""
        self._record()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """End the record."""
        if self._station is None:
            return
        try:
            if not self.worker:
                self._station.write("end", status=PASSED if exitstatus == pytest.ExitCode.OK else FAILED)
                write_junit(read_record(self.path), self.path.with_name(JUNIT))
        except (BadInput, OSError) as error:
            self._problem = str(error)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._station.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the record is."""
        if self._station:
            terminalreporter.write_line(f"edgeseg record: {self._problem or self.path}")

    def _record(self) -> Station:
        if self._station is None:
            self._station = Station(self.path, resume=self.worker is not None)
            if not self.worker:
                entries, candidates = list(self._entries.values()), list(self._candidates.values())
                self._station.write("run", **about(self._holder, entries, candidates))
        return self._station

    def _note(self, item: pytest.Item, report: pytest.TestReport, board: str) -> None:
        """Put a test on record when its last phase is over; the first phase that went wrong counts."""
        status, reason, seconds = self._ended.get(item.nodeid, (PASSED, "", 0.0))
        if status == PASSED and not report.passed:
            status = report.outcome if report.skipped or report.when == "call" else ERROR
            reason = _reason(report)
        self._ended[item.nodeid] = (status, reason, seconds + report.duration)
        if report.when == "teardown":
            status, reason, seconds = self._ended.pop(item.nodeid)
            what = {"test": item.nodeid, "status": status, "reason": reason, "seconds": round(seconds, 6)}
            try:
                self._record().write("test", board=board, **what)
            except BadInput as error:
                pytest.exit(str(error), pytest.ExitCode.TESTS_FAILED)


def _say(board: str, line: str) -> None:
    _log.info("%s: %s", board, line)


def _board_of(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return str(call.params.get(_BOARD, "")) if call else ""


def _asked(item: pytest.Item) -> CurrentTest:
    """What the marks of a test say. Raises BadInput where they say something else than they may."""
    return CurrentTest(_marked(item, "edgeseg_limits", Limits), _marked(item, "edgeseg_measures", Measures))


def _marked(item: pytest.Item, name: str, kind: type[_Struct]) -> _Struct | None:
    mark = item.get_closest_marker(name)
    if mark is None:
        return None
    try:
        if mark.args:
            raise ValueError(f"{mark.args[0]!r} has no name, expected as in {name}({kind.__struct_fields__[0]}=...)")
        check_tables(mark.kwargs, kind)
        return msgspec.convert(mark.kwargs, kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise BadInput(f"{item.name}: {name}: {plain(str(error))}") from error


def _shorten(report: pytest.TestReport, caught: pytest.ExceptionInfo[BaseException]) -> None:
    """Leave the message alone, in the report and in pytest's short summary."""
    shown = caught.getrepr(style="value", chain=False)
    if shown.reprcrash:
        shown.reprcrash.message = str(caught.value)
    report.longrepr = shown


def _reason(report: pytest.TestReport) -> str:
    """The first line of why a test failed or was skipped."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else report.longrepr or "").splitlines()
    return lines[0] if lines else ""
