"""Boards for tests: this machine, and emulated ones that go down whatever the test does."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeseg.boards.emulated.board import EmulatedBoard, board, list_boards
from edgeseg.boards.emulated.starting import check_possible, down, up
from edgeseg.boards.hil.bundles import Candidate, read_candidate
from edgeseg.boards.hil.environment import BoardEntry, Limits, Measures, local_board
from edgeseg.boards.hil.facts import BoardFacts
from edgeseg.boards.hil.transport import Holder
from edgeseg.errors import BoardError

QUICK = Measures(warm_up_rounds=0, bench_rounds=2, bench_repeats=1, soak_minutes=0, timeout_s=120)
MakeBoard = Callable[..., EmulatedBoard]


@pytest.fixture
def holder() -> Holder:
    return Holder("20260101-000000-abcdef", "tester", "here", 1, "2026-01-01T00:00:00.000Z")


@pytest.fixture
def local(tmp_path: Path) -> BoardEntry:
    """This machine with a folder and a lease of the test's own."""
    work = tmp_path / "work"
    return msgspec.structs.replace(
        local_board(), work=str(work), lease=str(tmp_path / "lease"), measures=QUICK, limits=Limits()
    )


@pytest.fixture
def candidate(bundle: Path) -> Candidate:
    return read_candidate(bundle)


@pytest.fixture
def make_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBoard]:
    """Start emulated boards. Where root or a tool is missing that is a failure in CI, and a skip elsewhere."""
    monkeypatch.setenv("EDGESEG_EMULATED", str(tmp_path / "boards"))

    def make(**options: Any) -> EmulatedBoard:
        try:
            check_possible()
        except BoardError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        return up(f"t{secrets.token_hex(4)}", **options)

    yield make
    for left in list_boards():
        down(left.name)


def quick(emulated: EmulatedBoard, **limits: Any) -> BoardEntry:
    """The entry of an emulated board on which little is measured."""
    return msgspec.structs.replace(emulated.entry(), measures=QUICK, limits=Limits(**limits))


def facts_of(**changes: Any) -> BoardFacts:
    """A board on which everything is well, but for the changes."""
    good = BoardFacts(
        edgeseg="0.1.0",
        manifest_schema=2,
        description="x86_64, 2 cores",
        board={"architecture": "x86_64", "profile": "generic-cpu", "memory_bytes": 4 << 30},
        reading={"memory_available_bytes": 4 << 30},
        engines={"litert": "2.3.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
        glibc="2.36",
        machine="0123456789abcdef",
        boot_id="b",
        time_unix=time.time(),
        work_free_bytes=1 << 30,
        trusted_keys=None,
        oom_kills=0,
    )
    return msgspec.structs.replace(good, **changes)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def events(record: Path, *names: str) -> list[dict[str, Any]]:
    """Events of a record, all or those of some names."""
    found = [msgspec.json.decode(line) for line in record.read_bytes().splitlines()]
    return [event for event in found if not names or event["event"] in names]


def again(emulated: EmulatedBoard) -> EmulatedBoard:
    """The board as it is now."""
    return board(emulated.name)


PYTHON = sys.executable
