"""The chain of hashes from the checkpoint to the measurement: every broken link is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg.bundle import open_bundle
from edgeseg.sbom import gaps
from edgeseg.types import Manifest

Change = Callable[[dict[str, Any]], None]
NETWORK = "e" * 64


def with_provenance(manifest: Manifest, **changes: Any) -> Manifest:
    return replace(manifest, provenance=replace(manifest.provenance, **changes))


@pytest.fixture
def whole(bundle: Path) -> Manifest:
    """The manifest of a real conversion, with a step for each artifact that names all its files."""
    manifest = open_bundle(bundle).manifest
    files = {(a.format, a.precision): [f.sha256 for f in a.files] for a in manifest.artifacts}
    measured = manifest.provenance.evaluation["sha256"]
    steps = tuple(
        {
            "step": "Made",
            "makes": list(kind),
            "inputs": files[(kind[0], "fp32")] if kind[1] == "int8" else [NETWORK],
            "outputs": hashes,
            "measured_on": measured,
        }
        for kind, hashes in files.items()
    )
    network = {"sha256": NETWORK, "made_of": manifest.provenance.source["sha256"]}
    return with_provenance(manifest, steps=steps, network=network)


def int8_of_openvino(steps: tuple[dict[str, Any], ...]) -> int:
    return next(i for i, step in enumerate(steps) if step["makes"] == ["openvino", "int8"])


def changed_step(manifest: Manifest, **changes: Any) -> Manifest:
    steps = list(manifest.provenance.steps)
    index = int8_of_openvino(manifest.provenance.steps)
    steps[index] = {**steps[index], **changes}
    return with_provenance(manifest, steps=tuple(steps))


def test_a_whole_chain_has_no_gap(whole: Manifest) -> None:
    assert gaps(whole) == ()


def test_what_convert_writes_is_a_chain(bundle: Path) -> None:
    assert gaps(open_bundle(bundle).manifest) == ()


@pytest.mark.parametrize(
    ("changes", "gap"),
    [
        ({"source": {}}, "the source has no hash"),
        ({"network": {}}, "the network that was converted has no hash"),
        ({"network": {"sha256": NETWORK, "made_of": "f" * 64}}, "does not name the source by hash"),
        ({"compression": {"prune": {}}}, "does not name the frames it learned from by hash"),
        ({"calibration": {}}, "openvino-int8 has no hash of its calibration frames"),
        ({"evaluation": {}}, "the measurement of openvino-int8 does not name its frames by hash"),
        ({"steps": ()}, "the steps do not say by hash what they took and made"),
    ],
)
def test_a_broken_link_is_named(whole: Manifest, changes: dict[str, Any], gap: str) -> None:
    assert any(gap in found for found in gaps(with_provenance(whole, **changes)))


@pytest.mark.parametrize(
    ("changes", "gap"),
    [
        ({"outputs": []}, "no step says that it made openvino-int8"),
        ({"inputs": []}, "the step that made openvino-int8 does not say what of"),
        ({"inputs": ["f" * 64]}, "openvino-int8 was made of something that the manifest does not know"),
        ({"measured_on": "f" * 64}, "the measurement of openvino-int8 does not name its frames by hash"),
    ],
)
def test_a_broken_step_is_named(whole: Manifest, changes: dict[str, Any], gap: str) -> None:
    assert gaps(changed_step(whole, **changes)) == (gap,)


def test_weights_beside_a_model_count_as_well(whole: Manifest) -> None:
    steps = whole.provenance.steps
    model, weights = steps[int8_of_openvino(steps)]["inputs"]
    for half in ([model], [weights]):
        (found,) = gaps(changed_step(whole, inputs=half))
        assert found == "the step that made openvino-int8 names some of the files it took, not all"
    made = steps[int8_of_openvino(steps)]["outputs"]
    assert "no step says that it made openvino-int8" in gaps(changed_step(whole, outputs=made[:1]))
