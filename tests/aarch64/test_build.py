"""Boards that are whole, half, busy, or cannot be built."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.boards.aarch64 import debian, wheels
from edgeseg.boards.aarch64.board import RECORD, Aarch64Board, Wheel, open_board
from edgeseg.boards.aarch64.build import build
from edgeseg.boards.aarch64.cores import CORES, write_cores
from edgeseg.boards.aarch64.tools import PROGRAMS, call, require
from edgeseg.boards.detect import detect
from edgeseg.errors import BadInput, BoardBusy, BoardError


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edgeseg.boards.aarch64", *(str(w) for w in words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def programs() -> None:
    """Skip where qemu or mmdebstrap is missing; in CI that is a failure."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        assert not os.environ.get("CI"), missing
        pytest.skip(f"needs {missing}")


def test_half_a_board_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text("#!/bin/sh\necho used\n")
    (tmp_path / "bin/python").chmod(0o755)
    for record in (None, b"", b'{"schema": 1'):
        if record is not None:
            (tmp_path / RECORD).write_bytes(record)
        with pytest.raises(BoardError, match=r"no whole aarch64 board: `python -m edgeseg\.boards\.aarch64 build"):
            open_board(tmp_path)
    done = command("run", tmp_path, "python", "-c", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("programs")
def test_a_failed_build_leaves_no_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RECORD).write_bytes(b"{}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(BoardError, match="mmdebstrap failed") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / RECORD).exists()
    assert not (tmp_path / "bin").exists()


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match=r"`sudo apt-get install qemu-user-static mmdebstrap`$"):
        build(tmp_path / "board")
    assert not (tmp_path / "board").exists()
    require()


@pytest.mark.usefixtures("programs")
def test_two_builders_do_not_meet(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(BoardBusy, match="another process builds"):
            build(tmp_path)
    finally:
        os.close(descriptor)


def test_unknown_core(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'max' is no core"):
        build(tmp_path, "max")
    assert command("build", tmp_path, "--core", "max").returncode == 2


@pytest.mark.parametrize("name", CORES)
def test_cores_are_recognised(tmp_path: Path, name: str) -> None:
    write_cores(tmp_path, CORES[name], 2)
    (tmp_path / "proc/self").mkdir()
    found = detect(tmp_path)
    assert (found.architecture, found.cpu_model.lower(), found.cores) == ("aarch64", name, 2)
    assert ("asimddp" in found.flags) is (name == "cortex-a76")


def test_wheels_have_the_versions_that_are_here() -> None:
    wanted = wheels.requirements()
    names = {line.split("==")[0] for line in wanted}
    assert {"numpy", "opencv-python-headless", "cryptography", "onnxruntime", "openvino", "ai-edge-litert"} <= names
    assert {"pytest", "pytest-timeout"} <= names
    assert not names & {"torch", "onnx", "nncf", "ruff", "highdicom"}
    assert all("==" in line for line in wanted)


def test_a_damaged_wheel_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.whl").write_bytes(b"wheel")
    known = Wheel("a.whl", wheels._sha256(tmp_path / "a.whl"))
    assert wheels.fetch(("a",), (known,), tmp_path) == (known,)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for record in (Wheel("a.whl", "0" * 64), Wheel("b.whl", known.sha256)):
        with pytest.raises(BoardError, match=r"pip download failed .* No matching distribution found for edgeseg-none"):
            wheels.fetch(("edgeseg-none",), (record,), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.whl"]


def test_programs_that_hang_are_ended() -> None:
    with pytest.raises(BoardError, match=r"a program took longer than 0\.1 s and was ended"):
        call("a program", ["sleep", "60"], 0.1)


@pytest.mark.slow
@pytest.mark.aarch64
def test_a_board_that_is_right_is_kept(board: Aarch64Board, monkeypatch: pytest.MonkeyPatch) -> None:
    before, made = board.record, board.root.stat().st_mtime_ns
    said: list[str] = []
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert build(board.folder, say=said.append).record == before
    assert (said, board.root.stat().st_mtime_ns) == ([], made)
    assert before is not None
    assert before.suite == debian.SUITE
    assert before.versions["python3.11"].startswith("3.11.")
    assert all(len(wheel.sha256) == 64 for wheel in before.wheels)
