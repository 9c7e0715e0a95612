"""Whether a manifest ties checkpoint, compression, conversion, artifact and measurement to each other by hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeseg.types import Artifact, Manifest

Step = Mapping[str, Any]


def gaps(manifest: Manifest) -> tuple[str, ...]:
    """Where the chain of hashes is broken, a line each; empty where every link is there.

    The links: the source has a hash; the network that was converted says of which source it is; every artifact is the
    output of a step, whose inputs are that network or outputs of other steps; int8 has its calibration frames; every
    measurement has its evaluation frames.
    """
    made = manifest.provenance
    found = []
    if not made.source.get("sha256"):
        found.append("the source has no hash")
    if not any(step.get("outputs") for step in made.steps):
        found.append("the steps do not say by hash what they took and made: convert the model again")
        return tuple(found)
    if not made.network.get("sha256"):
        found.append("the network that was converted has no hash")
    elif made.network.get("made_of") != made.source.get("sha256"):
        found.append("the network that was converted does not name the source by hash")
    if made.compression and not made.compression.get("pool", {}).get("sha256"):
        found.append("the compression does not name the frames it learned from by hash")
    for artifact in manifest.artifacts:
        found += _of_artifact(artifact, manifest)
    return tuple(dict.fromkeys(found))


def step_of(artifact: Artifact, manifest: Manifest) -> Step | None:
    """The step that made an artifact, by the hashes of its files."""
    files = {record.sha256 for record in artifact.files}
    return next((step for step in manifest.provenance.steps if files <= set(step.get("outputs", ()))), None)


def _of_artifact(artifact: Artifact, manifest: Manifest) -> Iterator[str]:
    made = manifest.provenance
    step = step_of(artifact, manifest)
    if step is None:
        yield f"no step says that it made {artifact.name}"
        return
    inputs = set(step.get("inputs", ()))
    if not inputs:
        yield f"the step that made {artifact.name} does not say what of"
    outputs = [set(other.get("outputs", ())) for other in made.steps]
    frames = {made.calibration.get("sha256"), made.evaluation.get("sha256")}
    known = {made.source.get("sha256"), made.network.get("sha256")} | frames | set().union(*outputs)
    if inputs - known:
        yield f"{artifact.name} was made of something that the manifest does not know"
    if any(inputs & files and not files <= inputs for files in outputs):
        yield f"the step that made {artifact.name} names some of the files it took, not all"
    if artifact.precision == "int8" and not made.calibration.get("sha256"):
        yield f"{artifact.name} has no hash of its calibration frames"
    measured = artifact.parity is not None and made.evaluation.get("sha256")
    if not measured or step.get("measured_on") != made.evaluation.get("sha256"):
        yield f"the measurement of {artifact.name} does not name its frames by hash"
