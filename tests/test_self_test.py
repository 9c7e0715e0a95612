"""The self-test passes on the machine of the conversion and names what is wrong where something is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeseg import plugins, self_test
from edgeseg.bundle import open_bundle, read_model
from edgeseg.preprocess import to_input, to_mask
from edgeseg.self_test import network_input, preprocess_sha256, read_expected
from edgeseg.types import Artifact, Bundle, Precision, Session


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle)


def run(opened: Bundle, artifact: Artifact) -> self_test.SelfTest:
    runtime = plugins.ENGINE_OF[artifact.format]
    with plugins.runtime(runtime).load(read_model(artifact), device="cpu", threads=1) as session:
        return self_test.self_test(opened, artifact, runtime, session, read_expected(opened))


def of(opened: Bundle, name: str) -> Artifact:
    return next(a for a in opened.artifacts if a.name == name)


def test_every_artifact_passes_where_it_was_made_and_has_its_tolerances(opened: Bundle) -> None:
    for artifact in opened.artifacts:
        [baseline] = artifact.baselines
        result = run(opened, artifact)
        assert result.reasons == ()
        assert result.frames == len(opened.manifest.golden)
        assert result.sqnr_db == pytest.approx(baseline.sqnr_db, abs=0.5)
        assert result.agreement >= baseline.agreement_min
        assert baseline.sqnr_db_min is not None
        assert baseline.sqnr_db is not None
        assert baseline.sqnr_db_min < baseline.sqnr_db
        assert (baseline.runtime, baseline.device) == (plugins.ENGINE_OF[artifact.format], "cpu")
        assert baseline.version == plugins.runtime(baseline.runtime).version()
        if artifact.precision is Precision.FP32:
            assert baseline.sqnr_db_min >= 75


def test_the_recorded_inputs_are_what_is_made_here(opened: Bundle) -> None:
    for golden in read_expected(opened):
        assert golden.input is not None
        np.testing.assert_array_equal(golden.input, network_input(golden.frame, opened.preprocess))
        np.testing.assert_array_equal(golden.input, to_input(golden.frame, opened.preprocess)[0, 0])


def test_another_preprocessing_than_measured_with(opened: Bundle) -> None:
    artifact = opened.artifacts[0]
    assert artifact.preprocess_sha256 == preprocess_sha256(opened.preprocess)
    other = replace(opened, manifest=replace(opened.manifest, preprocess=replace(opened.preprocess, mean=(0.5,))))
    assert run(other, artifact).reasons[0] == (
        f"preprocessing: the manifest's is not the one that {artifact.name} was measured with"
    )


def test_a_frame_prepared_in_another_way(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "to_input", lambda frame, *rest, **_: to_input(frame, *rest)[..., ::-1].copy())
    reasons = run(opened, of(opened, "onnx-int8")).reasons
    assert reasons[0].startswith("preprocessing: the network input of golden frame 000.png is mirrored left to right")
    assert reasons[1].startswith("logits: SQNR")


def test_a_mask_turned_after_the_network(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "to_mask", lambda logits, shape, **_: to_mask(logits, shape)[::-1])
    [reason] = run(opened, of(opened, "openvino-int8")).reasons
    assert reason.startswith("mask: ")
    assert reason.endswith("it is mirrored top to bottom, while the logits are right")


class _Scaled:
    """A session whose logits are multiplied."""

    def __init__(self, session: Session, factor: float) -> None:
        self._session, self._factor = session, factor

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run(self, feeds):  # type: ignore[no-untyped-def]
        return {name: output * np.float32(self._factor) for name, output in self._session.run(feeds).items()}


@pytest.mark.parametrize(("factor", "said"), [(0.9, "tolerance >= "), (-1.0, "of another model"), (np.nan, "SQNR nan")])
def test_other_logits(opened: Bundle, factor: float, said: str) -> None:
    artifact = of(opened, "onnx-fp32")
    with plugins.runtime("onnxruntime").load(read_model(artifact), device="cpu", threads=1) as session:
        scaled = _Scaled(session, factor)
        if np.isnan(factor):
            with pytest.raises(Exception, match="not finite"):
                self_test.self_test(opened, artifact, "onnxruntime", scaled, read_expected(opened))  # type: ignore[arg-type]
            return
        result = self_test.self_test(opened, artifact, "onnxruntime", scaled, read_expected(opened))  # type: ignore[arg-type]
    assert said in result.reasons[0]


def test_without_a_record_the_gates_hold(opened: Bundle) -> None:
    artifact = replace(of(opened, "tflite-int8"), baselines=(), preprocess_sha256="")
    assert run(opened, artifact).reasons == ()
    strict = replace(opened, manifest=replace(opened.manifest, gates=replace(opened.manifest.gates, sqnr_db_min=90)))
    assert run(strict, artifact).reasons[0].startswith("logits: SQNR")
