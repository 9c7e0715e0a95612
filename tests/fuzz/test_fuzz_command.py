from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import edgeseg.bundle
from edgeseg.commands.fuzz import PARTS
from edgeseg.fuzz.runs import FULL, Part
from edgeseg.keys import new_key
from edgeseg.signing import sign_bundle

Invoke = Callable[..., Result]


def test_the_parts_of_the_command_are_those_of_the_harness() -> None:
    assert tuple(Part) == PARTS


def test_the_full_numbers_are_those_that_were_asked_for() -> None:
    assert (FULL.mutations, FULL.engines, FULL.bits, FULL.cases) == (10_000, 2_000, 10_000, 1)
    assert 3 * FULL.kills >= 1000


def test_a_sound_bundle_passes_and_the_results_are_written(invoke: Invoke, sound: Path, tmp_path: Path) -> None:
    report = tmp_path / "fuzz.json"
    result = invoke("fuzz", sound, "--part", "mutations", "--part", "bits", "--count", 20, "--json", report)
    assert result.exit_code == 0, result.output
    assert "nothing got through" in result.output
    rows = json.loads(report.read_text())["rows"]
    assert [r["what"] for r in rows[:3]] == ["onnx", "xml", "bin"]
    assert len(rows) == 11
    assert all(r["passed"] and r["trials"] == 20 for r in rows)


def test_what_gets_through_is_exit_code_1(invoke: Invoke, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgeseg.bundle, "check_files", lambda root, manifest: None)
    monkeypatch.setattr(edgeseg.bundle, "checked_blocks", lambda path, record, root: iter([path.read_bytes()]))
    result = invoke("fuzz", sound, "--part", "mutations", "--only", "tflite", "--count", 8)
    assert result.exit_code == 1
    assert "8 got through" in result.output
    assert "mutations tflite: model.tflite, seed 0, mutation 0" in result.output
    assert "3 more" in result.output


def test_a_signed_bundle_is_held_to_its_own_key(invoke: Invoke, sound: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(sound, tmp_path / "signed.edgeseg"))
    key, other = new_key("release", tmp_path), new_key("other", tmp_path)
    sign_bundle(copy, key.with_suffix(".key"))
    arguments = ("fuzz", copy, "--part", "bits", "--count", 20)
    assert invoke(*arguments, "--key", key).exit_code == 0
    refused = invoke(*arguments, "--key", other)
    assert refused.exit_code == 1
    assert "unknown key" in refused.output


def test_nothing_of_that_name_is_an_error(invoke: Invoke, sound: Path) -> None:
    result = invoke("fuzz", sound, "--part", "kills", "--only", "nonsense")
    assert result.exit_code == 1
    assert result.output.startswith("error: nothing to do has 'nonsense' in its name")
