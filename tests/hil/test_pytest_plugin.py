"""The pytest plugin, by pytest runs of their own on this machine and on emulated boards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from edgeseg.boards.hil import ssh_transport
from edgeseg.boards.hil.board_under_test import BoardUnderTest, CurrentTest
from edgeseg.boards.hil.environment import Limits, read_environment
from edgeseg.boards.hil.held_board import HeldBoard, RunOptions
from edgeseg.boards.hil.local_transport import LocalTransport
from edgeseg.boards.hil.station import RECORD, Station, read_record
from edgeseg.boards.pytest_workers import board_of
from edgeseg.errors import BoardBusy, BoardUnreachable

from .conftest import QUICK, events, quick, wait_until

pytest_plugins = ("pytester",)

MEASURES = """
[measures]
warm_up_rounds = 0
bench_rounds = 2
bench_repeats = 2
soak_minutes = 0
runtimes = ["litert"]
"""
LOCAL = """
[[boards]]
name = "{name}"
transport = "local"
work = "{folder}/{name}-work"
lease = "{folder}/{name}-lease"
python = "{python}"
command = ["{python}", "-m", "edgeseg.cli"]
"""
SSH = """
[[boards]]
name = "{name}"
host = "{host}"
port = {port}
user = "root"
key = "{key}"
host_key = "{host_key}"
"""
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
DOCUMENT = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text()
PROVE = """
def test_bundle(edgeseg_board, edgeseg_bundle):
    edgeseg_board.prove(edgeseg_bundle)
"""


def lab(folder: Path, *names: str, more: str = "") -> Path:
    boards = "".join(LOCAL.format(name=name, folder=folder, python=sys.executable) for name in names)
    (folder / "lab.toml").write_text(MEASURES + boards + more)
    return folder / "lab.toml"


def run(pytester: pytest.Pytester, *words: Any) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *words, timeout=240)


def record_of(folder: Path) -> Path:
    (record,) = folder.glob(f"station/*/{RECORD}")
    return record


def test_each_board_has_each_test_and_what_goes_wrong_is_one_line(pytester, bundle):
    dead = SSH.format(name="dead", host="127.0.0.1", port=9, key=pytester.path / "key", host_key=HOST_KEY)
    (pytester.path / "key").write_text("")
    pytester.makepyfile("""
        import pytest
        from edgeseg.errors import BoardError, BoardTimeout

        @pytest.mark.edgeseg_limits(p99_ms=0.000001)
        def test_too_slow(edgeseg_board, edgeseg_bundle):
            edgeseg_board.prove(edgeseg_bundle)

        def test_unboarded():
            pass

        @pytest.mark.edgeseg_limits(p99_ms=60_000, fps=0.001, dice=0.9, soak_missed=1000)
        @pytest.mark.edgeseg_measures(runtimes=["openvino"], warm_up_rounds=0, bench_rounds=2, bench_repeats=2,
                                      soak_minutes=0.02, soak_fps=5.0, soak_deadline_ms=5000)
        def test_figures(edgeseg_board, edgeseg_bundle):
            proof = edgeseg_board.prove(edgeseg_bundle, check=False)
            assert (proof.board, proof.bundle) == (edgeseg_board.name, "tiny.edgeseg")
            assert proof.steps["bench"]["status"] == "passed", proof.reason
            assert {(a.runtime, a.precision) for a in proof.artifacts} == {("openvino", "fp32"), ("openvino", "int8")}
            assert proof.p99_ms == min(proof.artifacts, key=lambda artifact: artifact.p50_ms).p99_ms
            assert 0.9 < proof.dice <= 1
            assert proof.soak_p999_ms > 0
            assert {"p99_ms", "fps", "dice", "memory_mb", "soak_missed"} <= set(proof.figures())

        @pytest.mark.edgeseg_measures(runtimes=["nothing"])
        def test_refused(edgeseg_board, edgeseg_bundle):
            edgeseg_board.prove(edgeseg_bundle)

        def test_commands_and_files(edgeseg_board, tmp_path):
            there = f"{edgeseg_board.entry.work}/file"
            (tmp_path / "file").write_text("text")
            edgeseg_board.put(tmp_path / "file", there)
            assert edgeseg_board.run(["cat", there], 20).stdout == b"text"
            edgeseg_board.get(there, tmp_path / "back")
            assert (tmp_path / "back").read_text() == "text"
            with pytest.raises(BoardTimeout):
                edgeseg_board.run(["sleep", "60"], 0.5)
            assert edgeseg_board.facts.engines["litert"]
            edgeseg_board.get("/no/such/file", tmp_path / "back")
    """)
    result = run(pytester, "--edgeseg-env", lab(pytester.path, "here", more=dead), "--edgeseg-bundle", bundle, "-v")
    result.assert_outcomes(passed=2, failed=3, errors=4)
    text = result.stdout.str()
    assert "here: tiny.edgeseg: bench: tflite-" in text
    assert "expected at most 1e-06 ms" in text
    assert "tiny.edgeseg cannot run on here: it has nothing for nothing" in text
    assert "here: /no/such/file cannot be read: " in text
    assert text.count("dead: no connection to root@127.0.0.1:9") >= 4
    assert "Traceback" not in text
    assert not [line for line in result.outlines if ".py:" in line and "::" not in line and "site-packages" not in line]
    order = [line.split()[0].partition("::")[2] for line in result.outlines if "%]" in line]
    assert order[0] == "test_unboarded"
    assert ["dead" in name for name in order] == [False] * 5 + [True] * 4

    record = record_of(pytester.path)
    assert f"edgeseg record: {record}" in text
    assert events(record, "run")[0]["boards"] == ["here", "dead"]
    status = {event["test"].partition("::")[2]: event["status"] for event in events(record, "test")}
    assert status["test_too_slow[here-tiny.edgeseg]"] == "failed"
    assert status["test_figures[here-tiny.edgeseg]"] == "passed"
    assert [name for name in status if status[name] == "error"] == [name for name in status if "dead" in name]
    fits = [(e["limits"]["p99_ms"], e["measures"]["runtimes"]) for e in events(record, "fit")]
    assert fits == [(0.000001, ["litert"]), (60_000, ["openvino"])]
    bundles = [(event["board"], event["status"]) for event in events(record, "bundle")]
    assert bundles[0] == ("here", "failed")
    assert bundles[2:] == [("here", "refused"), ("dead", "error")]
    assert len(events(record, "connected")) == 1
    assert [event["status"] for event in events(record, "end")] == ["failed"]
    assert (record.parent / "junit.xml").is_file()
    assert not list((pytester.path / "here-work").glob("hil-*"))


def test_the_test_that_nobody_has_to_write_and_the_documented_one(pytester, bundle):
    lab(pytester.path, "here")
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    (pytester.path / "test_example.py").write_text(
        example.replace("soak_minutes=0", 'soak_minutes=0, runtimes=["litert"]')
    )
    pytester.makeini(f"[pytest]\nedgeseg_env = lab.toml\nedgeseg_bundle = {bundle}\n")
    words = ("--pyargs", "edgeseg.boards.suite", "test_example.py", "--edgeseg-station", "out")
    result = run(pytester, *words, "--junitxml", "junit.xml")
    result.assert_outcomes(passed=3)
    record = read_record(pytester.path / "out" / RECORD)
    assert record.done("here").bundles[record.digests["tiny.edgeseg"]]["status"] == "passed"
    assert record.events[-1]["status"] == "passed"
    found = {p.get("name"): p.get("value") for p in ElementTree.parse("junit.xml").iter("property")}
    assert float(found["edgeseg_p99_ms"]) > 0
    again = run(pytester, *words)
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["ERROR: *out/record.jsonl is there already: choose another --edgeseg-station"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--edgeseg-board nowhere", "ERROR: unknown board 'nowhere', expected one of local"),
        ("--edgeseg-bundle BUNDLE", "ERROR: which board? --edgeseg-board NAME, or --edgeseg-env FILE"),
        (
            "--edgeseg-board local --edgeseg-bundle BUNDLE --edgeseg-bundle BUNDLE",
            "ERROR: two bundles have the same*",
        ),
        ("--edgeseg-board local -n 1 --dist each", "ERROR: --dist each would give every board to every worker, *"),
    ],
)
def test_what_is_wrong_with_a_command_line(words, message, pytester, bundle, monkeypatch):
    monkeypatch.setenv("EDGESEG_EMULATED", str(pytester.path))
    pytester.makepyfile(PROVE)
    result = run(pytester, *words.replace("BUNDLE", str(bundle)).split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (pytester.path / "station").exists()


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_mark_that_nobody_knows_is_an_error_before_any_test(workers, pytester):
    test = "import pytest\n\n@pytest.mark.{}\ndef test_it(edgeseg_board): pass\n"
    marks = ("edgeseg_limits(p99=20.0)", 'edgeseg_limits(p99_ms="fast")', "edgeseg_measures(0.5)")
    pytester.makepyfile(**{f"test_{number}": test.format(mark) for number, mark in enumerate(marks)})
    result = run(pytester, "--edgeseg-board", "local", *workers)
    result.assert_outcomes(errors=3)
    for line in (
        "test_it: edgeseg_limits: unknown key 'p99', did you mean 'p99_ms'?",
        "test_it: edgeseg_limits: p99_ms: Expected `float | null`, got `str`",
        "test_it: edgeseg_measures: 0.5 has no name, expected as in edgeseg_measures(threads=...)",
    ):
        assert line in result.outlines
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_without_options_it_does_nothing(pytester):
    pytester.makepyfile("""
        import sys

        def test_cost():
            loaded = [name for name in sys.modules if name.startswith("edgeseg")]
            assert sorted(loaded) == ["edgeseg", "edgeseg.boards", "edgeseg.boards.pytest_plugin"]

        def test_board(edgeseg_board): pass

        def test_bundle(edgeseg_bundle): pass
    """)
    result = run(pytester, "-rs", "--strict-markers")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*which board? --edgeseg-board NAME, or --edgeseg-env FILE"])
    assert not (pytester.path / "station").exists()
    refused = run(pytester, "--pyargs", "edgeseg.boards.suite")
    assert refused.ret == pytest.ExitCode.INTERRUPTED
    refused.stdout.fnmatch_lines(["which board? --edgeseg-board NAME, or --edgeseg-env FILE"])


def test_boards_work_at_the_same_time_one_worker_each(pytester, bundle):
    pytester.makepyfile("""
        import os
        import time
        from pathlib import Path

        FOLDER = Path(__file__).parent

        def test_together(edgeseg_board):
            (FOLDER / f"{edgeseg_board.name}.there").touch()
            end = time.monotonic() + 60
            while len(list(FOLDER.glob("*.there"))) < 2:
                assert time.monotonic() < end, "the other board did not come"
                time.sleep(0.05)

        def test_worker(edgeseg_board, edgeseg_bundle):
            (FOLDER / f"{edgeseg_board.name}.{os.environ['PYTEST_XDIST_WORKER']}").touch()
            edgeseg_board.prove(edgeseg_bundle)

        def test_same_worker(edgeseg_board):
            assert (FOLDER / f"{edgeseg_board.name}.{os.environ['PYTEST_XDIST_WORKER']}").exists()

        def test_unboarded(): pass
    """)
    result = run(
        pytester, "--edgeseg-env", lab(pytester.path, "one", "one-more"), "--edgeseg-bundle", bundle, "-n", "2"
    )
    result.assert_outcomes(passed=7)
    record = record_of(pytester.path)
    found = events(record)
    assert [found[0]["event"], found[-1]["event"], found[-1]["status"]] == ["run", "end", "passed"]
    assert sorted(event["board"] for event in events(record, "connected")) == ["one", "one-more"]
    assert len(events(record, "test")) == 6
    assert read_record(record).torn == 0


def test_every_option_and_figure_is_documented():
    for name in ("board", "env", "bundle", "station", "wait"):
        assert f"| `--edgeseg-{name} " in DOCUMENT
    for name in Limits.__struct_fields__:
        assert f"`{name}`" in DOCUMENT


def test_the_board_of_an_id():
    boards = ("cart", "cart-1", "n100")
    assert board_of("a.py::test[cart-1-head.edgeseg]", boards) == "cart-1"
    assert board_of("a.py::test[cart-head.edgeseg]", boards) == "cart"
    assert board_of("a.py::test[x-n100]@group", boards) == "n100"
    assert board_of("a.py::test_cart", boards) == ""


def test_a_board_that_another_runner_has(pytester, holder):
    pytester.makepyfile("def test_one(edgeseg_board): pass\n\ndef test_two(edgeseg_board): pass\n")
    path = lab(pytester.path, "here", "there")
    entry = read_environment(path).board("here")
    transport = LocalTransport(entry)
    transport.open(holder)
    try:
        result = run(pytester, "--edgeseg-env", path)
    finally:
        transport.close()
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines([f"here is in use by run {holder.run} (tester@here, process 1, since *)*"])
    assert [event["error"] for event in events(record_of(pytester.path), "board error")] == ["BoardBusy"]


def test_a_disk_that_does_not_take_the_record_ends_the_session_in_one_line(pytester):
    pytester.makepyfile("""
        import resource

        def test_full(edgeseg_board):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
            edgeseg_board.run(["true"])

        def test_other(edgeseg_board): pass
    """)
    # Pipes, because the limit is on files.
    words = ("-s", "-p", "no:cacheprovider", "--edgeseg-env", str(lab(pytester.path, "here")))
    done = subprocess.run([sys.executable, "-m", "pytest", *words], capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"{record_of(pytester.path)} cannot be written: File too large !" in done.stdout
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert "test_other" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_runner_that_ends_gives_the_board_back_and_nothing_runs_on(number, pytester, holder):
    mark = f"60.{os.getpid()}{number:d}"
    pytester.makepyfile(f'def test_long(edgeseg_board):\n    edgeseg_board.run(["sleep", "{mark}"], 90)\n')
    path = lab(pytester.path, "here")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--edgeseg-env", str(path)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert wait_until(lambda: _running(mark), 60)
    runner.send_signal(number)
    output, _ = runner.communicate(timeout=60)
    entry = read_environment(path).board("here")
    assert wait_until(lambda: _can_be_had(entry, holder), 20)
    assert wait_until(lambda: not _running(mark), 20)
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in output
        assert [event["status"] for event in events(record_of(pytester.path), "end")] == ["failed"]


def _running(mark: str) -> bool:
    return any(_words(path) == ["sleep", mark] for path in Path("/proc").glob("[0-9]*"))


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _can_be_had(entry: Any, holder: Any) -> bool:
    transport = LocalTransport(entry)
    try:
        transport.open(holder)
    except BoardBusy:
        return False
    finally:
        transport.close()
    return True


@pytest.mark.hil
def test_an_emulated_board_and_one_with_another_host_key(make_board, pytester, bundle):
    board = make_board()
    pytester.makepyfile("""
        import pytest

        @pytest.mark.edgeseg_measures(runtimes=["litert"], warm_up_rounds=0, bench_rounds=2, soak_minutes=0)
        def test_bundle(edgeseg_board, edgeseg_bundle):
            assert edgeseg_board.prove(edgeseg_bundle).p99_ms > 0
            assert edgeseg_board.run(["hostname"]).stdout.decode().strip() == edgeseg_board.name
    """)
    other = SSH.format(name="other", host=board.address, port=22, key=board.folder / "client", host_key=HOST_KEY)
    (pytester.path / "lab.toml").write_text(other)
    words = ("--edgeseg-env", "lab.toml", "--edgeseg-board", board.name, "--edgeseg-board", "other")
    result = run(pytester, *words, "--edgeseg-bundle", bundle)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["other: *shows the host key SHA256:*"])
    assert [event["error"] for event in events(record_of(pytester.path), "board error")] == ["WrongHostKey"]
    assert wait_until(lambda: not board.strays(), 5), board.strays()


@pytest.mark.hil
def test_a_board_that_is_lost_in_a_test_is_not_tried_again(make_board, candidate, holder, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_transport, "_ALIVE_S", 1)
    monkeypatch.setattr(ssh_transport, "_CONNECT_S", 3)
    emulated = make_board()
    measures = msgspec.structs.replace(QUICK, runtimes=("litert",))
    with Station(tmp_path / RECORD) as station:
        held = HeldBoard(quick(emulated), holder, station, RunOptions(reconnect_s=0.5))
        board = BoardUnderTest(held, {candidate.path: candidate}, lambda: CurrentTest(measures=measures))
        board.begin()
        assert board.prove(candidate.path).p99_ms
        emulated.plug(plugged=False)
        with pytest.raises(BoardUnreachable, match=f"{emulated.name}: no connection to "):
            board.run(["sleep", "30"], 60)
        start = time.monotonic()
        with pytest.raises(BoardUnreachable, match=f"{emulated.name}: no connection to "):
            board.prove(candidate.path)
        assert time.monotonic() - start < 1
    assert events(tmp_path / RECORD, "quarantine")
    assert [event["status"] for event in events(tmp_path / RECORD, "bundle")] == ["passed"]
