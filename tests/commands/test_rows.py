"""What verify says beside its table: strata that were not tested, all failed gates, masks that came or went."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from edgeseg.commands.rows import Row, findings, untested
from edgeseg.evidence import Gates, Stratum

Invoke = Callable[..., Result]


def row(**figures: object) -> Row:
    return Row("onnx", "int8", "onnxruntime", "cpu", 1, frames=8, **figures)  # type: ignore[arg-type]


def test_what_was_not_tested_is_said_once() -> None:
    strata = (Stratum("empty", 0, "no empty frames"), Stratum("small", 3), Stratum("exam", 0, "no exam ids"))
    assert untested([row(strata=strata), row(strata=strata), row()]) == "no empty frames; no exam ids"
    assert untested([row(strata=strata[1:2])]) is None


def test_several_failed_gates_are_all_told_and_one_is_in_the_table() -> None:
    assert findings([row(failed=("a",)), row(failed=()), row()]) == []
    assert findings([row(failed=("a", "b"))]) == ["onnx-int8 on onnxruntime fails: a; b"]


def test_masks_that_only_one_of_the_two_has_are_counted() -> None:
    (line,) = findings([row(one_empty=2), row(one_empty=0)])
    assert line.startswith("onnx-int8 on onnxruntime: 2 of 8 frames have foreground in one of the two masks only")


def test_verify_has_strata_and_every_gate_in_its_json(
    invoke: Invoke, bundle: Path, frames: Path, tmp_path: Path
) -> None:
    arguments = ("--data", frames, "--split", "val", "--threads", 1, "--runtime", "onnxruntime")
    result = invoke("verify", bundle, *arguments, "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.output
    assert "false positives on empty frames were not tested" in result.stdout
    limits = {gate for gate in Gates.__dataclass_fields__ if gate != "small_share"}
    for found in json.loads((tmp_path / "v.json").read_text())["rows"]:
        assert {gate["gate"] for gate in found["gates"]} == limits
        assert found["failed"] == []
        assert [s["name"] for s in found["strata"]] == ["empty", "small", "worst-tenth", "exam"]
        assert found["strata"][0]["missing"].endswith("false positives on empty frames were not tested")
        assert found["hd95_share"] < 0.01
        passed = {gate["gate"]: gate["passed"] for gate in found["gates"]}
        assert passed["agreement_min"] is passed["hd95_max"] is passed["dice_drop_max"] is True
        assert passed["empty_false_positive_max"] is None
