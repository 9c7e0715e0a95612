from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeseg.bundle
from edgeseg.fuzz.mutations import Kind
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.refusals import Change, bit_flips, mutations, try_changes
from edgeseg.fuzz.tripwires import Tripped, tripwires
from edgeseg.fuzz.workbench import Workbench


def tried(bench: Workbench, changes: object) -> Outcomes:
    return try_changes(bench, changes, Outcomes("part", "what"), lambda: None)


@pytest.mark.parametrize("kind", Kind)
def test_every_mutation_is_refused_before_any_parser(bench: Workbench, kind: Kind) -> None:
    outcomes = tried(bench, mutations(bench, kind, 100, seed=1))
    assert outcomes.passed, outcomes.misses
    assert outcomes.trials == 100
    assert outcomes.notes["parsers reached"] == 0
    assert outcomes.counts["equal"] <= (10 if kind in (Kind.MANIFEST, Kind.SIGNATURE) else 0)


@pytest.mark.parametrize("packed", [False, True])
def test_every_flipped_bit_is_found(bench: Workbench, packed: bool) -> None:
    changes = list(bit_flips(bench, packed, 200, seed=1))
    kinds = {change.kind for change in changes}
    assert (kinds == {Kind.TRANSPORT}) if packed else kinds >= {Kind.MANIFEST, Kind.SIGNATURE, Kind.ONNX, Kind.TFLITE}
    outcomes = tried(bench, changes)
    assert (outcomes.passed, outcomes.counts["refused"]) == (True, 200), outcomes.misses


def test_the_bundle_is_sound_again_afterwards(bench: Workbench) -> None:
    before = {f: f.read_bytes() for files in bench.files.values() for f in files}
    tried(bench, mutations(bench, Kind.TFLITE, 5, seed=2))
    assert before == {f: f.read_bytes() for f in before}


def test_without_the_hashes_mutations_reach_an_engine_and_are_told(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgeseg.bundle, "check_files", lambda root, manifest: None)
    monkeypatch.setattr(edgeseg.bundle, "checked_blocks", lambda path, record, root: iter([Path(path).read_bytes()]))
    outcomes = tried(bench, mutations(bench, Kind.ONNX, 10, seed=1))
    assert not outcomes.passed
    assert outcomes.counts["parsed"] == outcomes.missed == 10
    assert outcomes.notes["parsers reached"] >= 10
    assert "seed 1, mutation 0" in outcomes.misses[0]


def test_without_the_signature_sealed_manifests_get_through_and_are_told(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgeseg.bundle, "check_signatures", lambda *_: None)
    outcomes = tried(bench, mutations(bench, Kind.MANIFEST, 150, seed=1))
    assert outcomes.counts["parsed"] >= 2, outcomes.counts


def test_an_error_that_is_not_edgesegs_is_a_miss(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(edgeseg.bundle, "check_names", broken)
    assert tried(bench, mutations(bench, Kind.BIN, 3, seed=1)).counts["untyped"] == 3


def test_a_manifest_of_equal_content_is_no_miss(bench: Workbench) -> None:
    file = bench.files[Kind.MANIFEST][0]
    original = file.read_bytes()
    other = json.dumps(dict(reversed(json.loads(original).items()))).encode()
    assert other != original
    outcomes = tried(bench, [Change(Kind.MANIFEST, file, original, other, "reordered")])
    assert (outcomes.passed, dict(outcomes.counts)) == (True, {"equal": 1})


def test_tripwires_count_and_are_gone_afterwards() -> None:
    import cv2
    import numpy as np

    from edgeseg.runtimes.onnx_runtime import OnnxRuntime

    before = (cv2.imdecode, np.load, OnnxRuntime.load, OnnxRuntime._open)
    with tripwires() as count:
        with pytest.raises(Tripped):
            np.load("x.npy")
        with pytest.raises(Tripped):
            OnnxRuntime().load(Path("x.onnx"))
    assert dict(count) == {"numpy.load": 1, "onnxruntime.load": 1}
    assert before == (cv2.imdecode, np.load, OnnxRuntime.load, OnnxRuntime._open)
    assert "load" not in vars(OnnxRuntime)
