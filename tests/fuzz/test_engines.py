from __future__ import annotations

import pytest

from edgeseg.errors import EngineCrashed
from edgeseg.fuzz import engines, hangs, readers
from edgeseg.fuzz.engines import available, try_engine
from edgeseg.fuzz.mutations import Kind
from edgeseg.fuzz.readers import try_reader
from edgeseg.fuzz.workbench import Workbench
from edgeseg.runtimes.isolated import IsolatedWorker


def test_the_bundle_has_all_kinds_of_models(bench: Workbench) -> None:
    assert available(bench) == (Kind.ONNX, Kind.XML, Kind.BIN, Kind.TFLITE)


@pytest.mark.parametrize("kind", engines.PARTS)
def test_unchecked_models_end_in_an_error_or_a_result(bench: Workbench, kind: Kind) -> None:
    outcomes = try_engine(bench, kind, 30, 1, lambda: None)
    assert outcomes.passed, outcomes.misses
    assert set(outcomes.counts) <= {"typed error", "ran, same result", "ran, other result", "child crashed"}
    assert outcomes.counts["typed error"] or kind is Kind.BIN


def test_an_untyped_error_and_a_crash_are_told(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = IsolatedWorker.load, iter(range(100))

    def load(self: IsolatedWorker, *args: object, **options: object) -> object:
        match next(calls):
            case 0:
                return real(self, *args, **options)
            case 1:
                raise KeyError("not one of edgeseg")
            case _:
                raise EngineCrashed("it died")

    monkeypatch.setattr(IsolatedWorker, "load", load)
    outcomes = try_engine(bench, Kind.ONNX, 2, 1, lambda: None)
    assert dict(outcomes.counts) == {"untyped error": 1, "child crashed": 1}
    assert outcomes.missed == 1
    assert "KeyError" in outcomes.misses[0]


@pytest.mark.parametrize("kind", readers.KINDS)
def test_unchecked_papers_and_frames_end_in_an_error_or_a_result(bench: Workbench, kind: Kind) -> None:
    outcomes = try_reader(bench, kind, 60, 1, lambda: None)
    assert outcomes.passed, outcomes.misses
    assert set(outcomes.counts) <= {"typed error", "a result"}


def test_a_reader_that_dies_is_a_miss(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = readers._Reader.read

    def read(self: readers._Reader, data: bytes, limit_s: float) -> str:
        self._process.kill()
        self._process.wait()
        return real(self, data, limit_s)

    monkeypatch.setattr(readers._Reader, "read", read)
    outcomes = try_reader(bench, Kind.PNG, 2, 1, lambda: None)
    assert (outcomes.missed, dict(outcomes.counts)) == (2, {"child crashed": 2})


def test_a_reader_that_hangs_is_a_miss(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = readers._Reader.read
    monkeypatch.setattr(readers._Reader, "read", lambda self, data, limit_s: real(self, data, 0.0))
    outcomes = try_reader(bench, Kind.NPY, 1, 1, lambda: None)
    assert dict(outcomes.counts) == {"child timed out": 1}
    assert not outcomes.passed


def test_an_endless_model_is_ended_in_time() -> None:
    outcomes = hangs.try_hangs(1, lambda: None)
    assert (outcomes.passed, dict(outcomes.counts)) == (True, {"ended": 1}), outcomes.misses
    assert outcomes.longest_s <= 1


def test_a_model_that_ends_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg.testing import PROBE

    monkeypatch.setattr(hangs, "endless_models", lambda: {"probe": (PROBE / "probe.onnx").read_bytes()})
    assert hangs.try_hangs(1, lambda: None).missed == 1
