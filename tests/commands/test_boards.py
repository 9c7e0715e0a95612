from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgeseg.boards.profile import profiles


def boards(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeseg.cli", "boards", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_list_has_every_board() -> None:
    done = boards("list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(profiles())


def test_show_marks_what_is_not_verified() -> None:
    done = boards("show", "jetson-orin-nano")
    assert done.returncode == 0, done.stderr
    (bandwidth,) = (line for line in done.stdout.splitlines() if line.startswith("memory_bandwidth"))
    assert "102 GB/s" in bandwidth
    assert " no " in bandwidth


def test_show_of_an_unknown_board() -> None:
    done = boards("show", "abacus")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_detect_writes_json(tmp_path: Path) -> None:
    done = boards("detect", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["schema"] == 1
    assert done.stdout.splitlines()[0] == found["description"]
    assert found["profile"] in profiles()
    assert "cannot be written" in boards("detect", "--json", tmp_path / "none" / "b.json").stderr
