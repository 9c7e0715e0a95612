from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeseg.errors import InferenceError
from edgeseg.fuzz import kills
from edgeseg.fuzz.kills import KINDS, kill_writers
from edgeseg.fuzz.workbench import Workbench


@pytest.mark.parametrize("operation", KINDS)
def test_a_killed_writer_leaves_a_whole_bundle(bench: Workbench, operation: str, tmp_path: Path) -> None:
    outcomes = kill_writers(bench.bundle, operation, 8, 1, tmp_path, lambda: None)
    assert outcomes.passed, outcomes.misses
    assert outcomes.trials == 8
    assert outcomes.notes["left over"] == 0
    assert sum(n for name, n in outcomes.counts.items() if name.startswith("killed")) >= 1, outcomes.counts
    assert not list(tmp_path.iterdir())


class CarelessWriters:
    """Writes half a bundle, as a plain copy does when it is killed."""

    half = False

    def __init__(self, operation: str, target: Path, key: Path) -> None:
        self._target = target

    def start(self, source: Path, delay_s: float) -> tuple[int, float]:
        shutil.rmtree(self._target, ignore_errors=True)
        shutil.copytree(source, self._target)
        if delay_s >= 0 and self.half:
            (self._target / "golden" / "000.png").write_bytes(b"half")
            return 9, 0.1
        return 0, 0.1

    def close(self) -> None:
        pass


def test_half_a_bundle_is_told(bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kills, "Writers", CarelessWriters)
    assert kill_writers(bench.bundle, "write", 2, 1, tmp_path, lambda: None).passed
    monkeypatch.setattr(CarelessWriters, "half", True)
    outcomes = kill_writers(bench.bundle, "write", 1, 1, tmp_path, lambda: None)
    assert (outcomes.missed, dict(outcomes.counts)) == (1, {"bad bundle": 1})
    assert "000.png" in outcomes.misses[0]


def test_writers_that_fail_by_themselves_are_an_error(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(CarelessWriters, "start", lambda self, source, delay_s: (1, 0.1))
    monkeypatch.setattr(kills, "Writers", CarelessWriters)
    with pytest.raises(InferenceError, match="a writer failed"):
        kill_writers(bench.bundle, "write", 1, 1, tmp_path, lambda: None)
