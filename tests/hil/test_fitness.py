"""What a board cannot run is refused before a byte goes there, and the reason is named."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import pytest

from edgeseg.boards.hil.bundles import read_candidate
from edgeseg.boards.hil.fitness import check_board, check_fitness
from edgeseg.errors import BoardError, BoardUnfit
from edgeseg.keys import new_key
from edgeseg.signing import sign_bundle

from .conftest import facts_of

MIB = 1 << 20


def test_a_board_that_has_everything(local, candidate):
    fitness = check_fitness(local, facts_of(), candidate, ())
    assert fitness.plan.groups == (("litert", "onnxruntime", "openvino"),)
    assert not fitness.left_out


def test_an_engine_that_is_missing_is_left_out_with_the_reason(local, candidate):
    facts = facts_of(engines={"openvino": "2026.4.1"})
    fitness = check_fitness(local, facts, candidate, ())
    assert fitness.plan.groups == (("openvino",),)
    assert fitness.left_out["litert"] == "litert is not installed on local"


@pytest.mark.parametrize(
    ("changes", "runtimes", "message"),
    [
        ({"engines": {}}, (), "cannot run on local: litert is not installed on local; onnxruntime is not installed"),
        ({"engines": {"openvino": "2026.4.1"}}, ("litert",), "cannot run on local: litert is not installed on local"),
        (
            {"engines": {"openvino": "2024.6.0"}},
            ("openvino",),
            "openvino is 2024.6.0 on local, expected 2025.0 or later",
        ),
        ({"manifest_schema": 1}, (), "has schema 2, edgeseg 0.1.0 on local reads up to 1: upgrade edgeseg there"),
        ({"work_free_bytes": MIB}, (), "MiB in /.* on local, 1.0 MiB are free: make room"),
        ({"work_writable": False}, (), "the user of local may not write to /.* there: give it that folder"),
        ({"trusted_keys": ("ab" * 32,)}, (), "is not signed, local trusts abababababab only: have it signed"),
        (
            {"glibc": "2.31", "board": {"architecture": "aarch64"}, "engines": {"litert": "2.3.0"}},
            ("litert",),
            "litert needs glibc 2.34 on aarch64, local has 2.31",
        ),
        (
            {"reading": {"memory_available_bytes": 64 * MIB}, "own_bytes": 0},
            (),
            "does not fit into the memory of local: litert needs about .* MB, local has",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, runtimes, message, local, candidate):
    with pytest.raises(BoardUnfit, match=message) as caught:
        check_fitness(local, facts_of(**changes), candidate, runtimes)
    assert "\n" not in str(caught.value)


def test_a_bundle_for_other_engines(local, candidate):
    manifest = replace(candidate.bundle.manifest, artifacts=candidate.bundle.artifacts[:1])
    only = replace(candidate, bundle=replace(candidate.bundle, manifest=manifest))
    with pytest.raises(BoardUnfit, match=r"cannot run on local: it has nothing for openvino"):
        check_fitness(local, facts_of(), only, ("openvino",))


def test_memory_for_one_engine_at_a_time(local, candidate):
    fitness = check_fitness(local, facts_of(reading={"memory_available_bytes": 200 * MIB}), candidate, ())
    assert len(fitness.plan.groups) > 1
    assert all(len(group) == 1 for group in fitness.plan.groups)
    assert "one after the other, about" in fitness.plan.description


def test_one_engine_alone_is_neither_at_once_nor_after_another(local, candidate):
    fitness = check_fitness(local, facts_of(reading={"memory_available_bytes": 120_000_000}), candidate, ())
    assert fitness.plan.description.startswith("litert, about ")
    assert sorted(fitness.left_out) == ["onnxruntime", "openvino"]


def test_the_limit_of_the_control_groups_counts_too(local, candidate):
    with pytest.raises(BoardUnfit, match=r"does not fit"):
        check_fitness(local, facts_of(board={"memory_bytes": 64 * MIB}), candidate, ())


def test_signed_bundles_only(local, bundle_copy, tmp_path):
    ours, theirs = new_key("ours", tmp_path), new_key("theirs", tmp_path)
    entry = msgspec.structs.replace(local, trusted_keys=(str(ours),))
    with pytest.raises(BoardUnfit, match=r"is not for local: .* is not signed"):
        check_fitness(entry, facts_of(), read_candidate(bundle_copy), ())
    sign_bundle(bundle_copy, ours.with_suffix(".key"))
    signed = read_candidate(bundle_copy)
    check_fitness(entry, facts_of(), signed, ())
    check_fitness(local, facts_of(trusted_keys=signed.key_ids), signed, ())
    with pytest.raises(BoardUnfit, match=r"is signed by the unknown key"):
        check_fitness(msgspec.structs.replace(local, trusted_keys=(str(theirs),)), facts_of(), signed, ())


@pytest.mark.parametrize(
    ("seconds", "message"), [(-3.2e7, "its clock is 370 days behind"), (7200.0, "its clock is 2 hours ahead")]
)
def test_a_wrong_clock(seconds, message, local):
    with pytest.raises(BoardError, match=message):
        check_board(local, facts_of(time_unix=time.time() + seconds))
    check_board(local, facts_of(time_unix=time.time() + 60))


def test_another_board_than_expected(local):
    entry = msgspec.structs.replace(local, profile="raspberry-pi-5")
    with pytest.raises(BoardError, match=r"local is recognised as generic-cpu .* expected raspberry-pi-5"):
        check_board(entry, facts_of())
