"""A chain has what was asked for, or what runs here, and nothing that did not pass its test."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeseg import plugins
from edgeseg.bundle import open_bundle
from edgeseg.errors import BadInput, InferenceError, SelfTestFailed
from edgeseg.runtimes.fallback import load_chain
from edgeseg.runtimes.segmenter import Segmenter
from edgeseg.self_test import SelfTest
from edgeseg.types import Bundle, Format, Precision


def names(chain: tuple[Segmenter, ...]) -> list[str]:
    return [f"{s.artifact.name} on {s.runtime} {s.device}" for s in chain]


def close(chain: tuple[Segmenter, ...]) -> None:
    for segmenter in chain:
        segmenter.close()


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch):
    """Engines whose masks are wrong in the self-test: "runtime" or "runtime:precision"."""
    from edgeseg import self_test as module

    honest = module.self_test
    wrong: set[str] = set()

    def test(bundle: Bundle, artifact, runtime: str, session, expected) -> SelfTest:
        result = honest(bundle, artifact, runtime, session, expected)
        if {runtime, f"{runtime}:{artifact.precision}"} & wrong:
            return SelfTest(result.frames, result.executed, 1.0, 0.5, ("logits: SQNR 1.0 dB",), result.seconds)
        return result

    monkeypatch.setattr(module, "self_test", test)
    return wrong


def test_what_runs_here_is_the_fastest_of_every_engine_and_then_full_precision(bundle: Path) -> None:
    chain = load_chain(bundle)
    try:
        assert {s.runtime for s in chain[:3]} == set(plugins.ENGINES)
        precisions = [s.artifact.precision for s in chain]
        assert Precision.FP32 in precisions
        assert len(chain) == 3 + (Precision.FP32 not in precisions[:3])
        assert all(s.skipped == {} for s in chain)
        frame = np.zeros((60, 80), np.uint8)
        assert all(s(frame).mask.shape == (60, 80) for s in chain)
    finally:
        close(chain)


def test_links_are_loaded_as_they_are_named(bundle: Path) -> None:
    chain = load_chain(open_bundle(bundle), ["openvino:int8", "litert:fp32:cpu", "onnxruntime::cpu", "openvino:int8"])
    assert names(chain)[:2] == ["openvino-int8 on openvino cpu", "tflite-fp32 on litert cpu"]
    assert chain[2].runtime == "onnxruntime"
    assert names(chain)[3] == names(chain)[0]
    assert chain[3] is not chain[0]
    close(chain)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("tensorrt", "unknown runtime 'tensorrt'"),
        ("openvino:int4", "unknown precision 'int4'"),
        ("", "unknown runtime ''"),
        ("litert:fp16", "no fp16 artifact"),
        ("onnxruntime:int8:gpu", "gpu"),
    ],
)
def test_a_link_that_is_none(bundle: Path, link: str, said: str) -> None:
    with pytest.raises(InferenceError, match=said) as caught:
        load_chain(bundle, ["litert:int8", link])
    assert "\n" not in str(caught.value)
    if "unknown" in said:
        assert isinstance(caught.value, BadInput)


def test_a_link_asked_for_by_name_has_to_pass_its_test(bundle: Path, spoiled: set[str]) -> None:
    spoiled.add("litert")
    with pytest.raises(SelfTestFailed, match="tflite-int8 on litert cpu failed its self-test"):
        load_chain(bundle, ["openvino:int8", "litert:int8"])
    close(load_chain(bundle, ["openvino:int8", "litert:int8"], self_test=False))


def test_what_fails_its_test_is_left_out_and_said(
    bundle: Path, spoiled: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    spoiled.add("litert")
    with caplog.at_level(logging.WARNING, "edgeseg.stream"):
        chain = load_chain(bundle)
    close(chain)
    assert {s.runtime for s in chain} == {"openvino", "onnxruntime"}
    assert any("litert" in name and "SQNR 1.0 dB" in reason for name, reason in chain[0].skipped.items())
    assert "left out of the chain" in caplog.text


def only_onnx(bundle: Path) -> Bundle:
    opened = open_bundle(bundle)
    artifacts = tuple(a for a in opened.artifacts if a.format is Format.ONNX)
    return replace(opened, manifest=replace(opened.manifest, artifacts=artifacts))


def test_engines_that_the_bundle_has_nothing_for_are_no_loss(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "edgeseg.stream"):
        chain = load_chain(only_onnx(bundle))
    close(chain)
    assert {s.runtime for s in chain} == {"onnxruntime"}
    assert chain[0].skipped == {}
    assert caplog.text == ""


def test_where_no_engine_is_installed_the_pip_command_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InferenceError, match=r"nothing of tiny\.edgeseg runs here as it should \(onnxruntime: .*pip"):
        load_chain(only_onnx(bundle))


def test_another_artifact_of_an_engine_takes_the_place_of_one_that_fails(bundle: Path, spoiled: set[str]) -> None:
    spoiled.update(f"{name}:int8" for name in plugins.ENGINES)
    chain = load_chain(bundle)
    close(chain)
    assert {s.runtime for s in chain} == set(plugins.ENGINES)
    assert {s.artifact.precision for s in chain} == {Precision.FP32}


def test_where_nothing_passes_there_is_no_chain(bundle: Path, spoiled: set[str]) -> None:
    spoiled.update(plugins.ENGINES)
    with pytest.raises(InferenceError, match=r"nothing of tiny\.edgeseg runs here") as caught:
        load_chain(bundle)
    for name in plugins.ENGINES:
        assert name in str(caught.value)
