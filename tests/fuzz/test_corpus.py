from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.fuzz import watch
from edgeseg.fuzz.cases import CASES
from edgeseg.fuzz.corpus import SECRET, Case, Scene, run
from edgeseg.fuzz.hostile import try_corpus
from edgeseg.fuzz.workbench import Workbench

# A few of each kind, none of which takes seconds; `edgeseg fuzz BUNDLE --part corpus --full` tries all of them.
QUICK = (
    *("png of 60000x60000", "jpeg of 65535x65535", "avi of 2^31 frames", "device as INPUT: a pipe"),
    *("dicom of 2^31 frames with their times", "dicom deflated, 2 GB", "manifest names a secret by a way around"),
    *("bundle that is /dev/zero", "golden logits with a pickle", "transport file with a link to outside"),
    *("onnx artifact: a constant of 2^40 numbers", "xml with an external entity", "tflite of 30000x30000"),
)


def fed(bench: Workbench, make: Callable[[Scene], list[str]], **options: float) -> str:
    """The first fault of a case, empty where it has none."""
    (row,) = try_corpus(bench, [Case("x", "y", make, **options)], lambda: None)
    return "".join(row.misses)


def test_the_corpus_is_large_and_every_case_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)
    assert {c.attacks for c in CASES} >= {"memory", "escape", "code", "hang", "recursion", "endless", "overflow"}


@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_file_is_refused(bench: Workbench, name: str) -> None:
    (row,) = try_corpus(bench, [case for case in CASES if case.name == name], lambda: None)
    assert row.passed, row.misses
    assert row.notes["peak MB"] > 10


def test_a_success_is_a_fault(bench: Workbench) -> None:
    assert "ended with 0 and 0 lines of error" in fed(bench, lambda scene: ["runtimes"])


def test_what_takes_too_long_is_ended_and_told(bench: Workbench) -> None:
    assert "did not end in time" in fed(bench, lambda scene: ["runtimes"], deadline_s=0.1 - watch._GRACE_S)


def test_what_takes_too_much_is_ended_and_told(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "OTHER_MEMORY_MB", 5)
    assert "took more than 5 MB" in fed(bench, lambda scene: ["runtimes"])


def test_a_secret_that_is_told_or_written_is_a_fault(bench: Workbench) -> None:
    def write(scene: Scene) -> list[str]:
        scene.out.mkdir()
        (scene.out / "copy").write_bytes(scene.secret.read_bytes())
        return run(scene, Path("missing"))

    assert "told the secret" in fed(bench, lambda scene: run(scene, Path(SECRET)))
    assert "told the secret" in fed(bench, write)


def test_a_canary_and_a_traceback_are_faults(bench: Workbench) -> None:
    def touch(scene: Scene) -> list[str]:
        scene.canary.mkdir()
        return ["--debug", *run(scene, Path("missing"))]

    told = fed(bench, touch)
    assert "made the canary" in told
    assert "printed a traceback" in told
