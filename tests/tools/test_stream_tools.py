"""The measurements of the device loop run and say what they found; their figures are for an idle machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgeseg.samples import FRAMES

TOOLS = Path(__file__).parents[2] / "tools"


def run(tool: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOLS / tool, *args]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=300)


def test_every_fault_is_survived(bundle: Path, tmp_path: Path) -> None:
    # 5 Hz: a fifth of a second for each result, because other tests may run beside.
    done = run("stream_faults.py", bundle, "--times", 1, "--rate", 5, "--json", tmp_path / "faults.json")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert [row["fault"] for row in rows] == ["exception", "hang", "NaN", "shape", "SIGSEGV"]
    assert all(row["passed"] == row["runs"] == 1 for row in rows)
    assert [row["frames_to_switch_max"] for row in rows] == [0, 2, 0, 0, 0]
    assert [row["stale_results"] for row in rows] == [0, 2, 0, 0, 0]


def test_real_time_is_measured_in_four_rows(bundle: Path, tmp_path: Path) -> None:
    args = ("--minutes", 0.02, "--round", 1.2, "--hogs", 1, "--rate", 20, "--json", tmp_path / "rt.json")
    done = run("stream_realtime.py", bundle, *args)
    assert "Traceback" not in done.stderr
    document = json.loads((tmp_path / "rt.json").read_text())
    assert [row["row"] for row in document["rows"]] == ["idle", "idle, rt", "hogs", "hogs, rt"]
    for row in document["rows"]:
        assert row["frames"] >= 24
        assert 0 < row["p50_ms"] <= row["p99.9_ms"] <= row["max_ms"]
        assert row["switches"] == 0
    assert done.returncode == (0 if document["passed"] else 1)


def test_changes_from_frame_to_frame_are_counted() -> None:
    done = run("stream_frozen.py", FRAMES)
    assert done.returncode == 0
    assert "longest standstill 0 steps, 0 bit-identical" in done.stdout
