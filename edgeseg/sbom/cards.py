"""What CycloneDX 1.6 says of models and of how they were made, and cyclonedx-python-lib has no classes for: as JSON.

Model cards (evidence of every artifact), contents of data sets, and the formulation: the steps of the conversion with
what each took and made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from edgeseg.evidence import Parity
from edgeseg.sbom.models import NETWORK, SOURCE, Parts, artifact_reference, data_reference, frames_used
from edgeseg.types import Artifact, Manifest, TensorSpec

Json = dict[str, Any]
_NO_FIGURES = frozenset(("runtime", "frames", "name", "missing", "exam", "strata", "exams"))


def model_cards(manifest: Manifest, root: str) -> dict[str, Json]:
    """Model cards by the reference of their component; `root` is that of the bundle."""
    network = {"task": "semantic segmentation", "architectureFamily": "convolutional neural network"}
    architecture = (manifest.provenance.source.get("architecture") or {}).get("name")
    if architecture:
        network["modelArchitecture"] = str(architecture)
    data = [{"ref": data_reference(s)} for s in dict.fromkeys(s for _, s, _ in frames_used(manifest))]
    whole: Json = {"modelParameters": {**network, **({"datasets": data} if data else {})}}
    if manifest.refused:
        whole["considerations"] = {
            "technicalLimitations": [f"refused: {r.format}-{r.precision}: {r.reason}" for r in manifest.refused]
        }
    cards = {root: whole}
    for artifact in manifest.artifacts:
        cards[artifact_reference(artifact)] = _artifact_card(artifact, manifest)
    return cards


def data_contents(manifest: Manifest) -> dict[str, Json]:
    """What the sets of frames are, by the reference of their component."""
    contents: dict[str, Json] = {}
    for role, sha256, record in frames_used(manifest):
        name = " ".join(str(record[key]) for key in ("folder", "split") if record.get(key)) or role
        contents.setdefault(data_reference(sha256), {"type": "dataset", "name": name})
    return contents


def formulation(manifest: Manifest, parts: Parts) -> list[Json]:
    """The steps from the source to the artifacts, with references to what each took and made."""
    tasks = [*_compression(manifest), *_conversions(manifest, parts), *_measurements(manifest)]
    if not tasks:
        return []
    workflow = {
        "bom-ref": "conversion",
        "uid": "conversion",
        "name": "edgeseg convert",
        "taskTypes": ["build", "test"],
        "tasks": tasks,
    }
    return [{"workflows": [workflow]}]


def _artifact_card(artifact: Artifact, manifest: Manifest) -> Json:
    card: Json = {
        "modelParameters": {
            "task": "semantic segmentation",
            "inputs": [_port(spec) for spec in artifact.inputs],
            "outputs": [_port(spec) for spec in artifact.outputs],
        }
    }
    frames = str(manifest.provenance.evaluation.get("sha256", ""))[:16]
    metrics = list(_metrics(artifact.parity, f"the network it was made of, data:{frames}"))
    metrics += _metrics(artifact.against_source, f"the source, data:{frames}")
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def _port(spec: TensorSpec) -> Json:
    return {"format": f"{spec.name} {spec.dtype} {spec.layout} {list(spec.shape)}"}


def _metrics(parity: Parity | None, against: str) -> Iterator[Json]:
    if parity is None:
        return
    figures = msgspec.to_builtins(parity)
    where = f"{parity.frames} frames on {parity.runtime}, against {against}"
    yield from _figures(figures, where)
    for stratum in figures.get("strata", ()):
        yield from _figures(stratum, f"{stratum['name']}: {stratum['frames']} of {where}")


def _figures(figures: Mapping[str, Any], where: str) -> Iterator[Json]:
    for name, value in figures.items():
        if name in _NO_FIGURES or not isinstance(value, int | float):
            continue
        metric: Json = {"type": name, "value": repr(value), "slice": where}
        interval = figures.get(f"{_stem(name)}_ci")
        if interval and not _shared(name, figures):
            metric["confidenceInterval"] = {"lowerBound": repr(interval[0]), "upperBound": repr(interval[1])}
        yield metric


def _stem(name: str) -> str:
    """The name that an interval goes by: that of its figure, without the unit."""
    return name.removesuffix("_mm").removesuffix("_share")


def _shared(name: str, figures: Mapping[str, Any]) -> bool:
    """Whether the interval of this name is of the same figure in another unit."""
    return name.endswith("_mm") and f"{_stem(name)}_share" in figures


def _compression(manifest: Manifest) -> Iterator[Json]:
    made = manifest.provenance
    if made.compression:
        learned = [data_reference(s) for role, s, _ in frames_used(manifest) if role.startswith("pool")]
        yield _task("compress", "compression of the source", "build", [SOURCE, *learned], [NETWORK])


def _conversions(manifest: Manifest, parts: Parts) -> Iterator[Json]:
    for number, step in enumerate(manifest.provenance.steps):
        taken, given = (
            [parts.by_hash[s] for s in step.get(k, ()) if s in parts.by_hash] for k in ("inputs", "outputs")
        )
        if taken or given:
            yield _task(f"step-{number}", str(step.get("step", "step")), "build", taken, given, step.get("options"))


def _measurements(manifest: Manifest) -> Iterator[Json]:
    evaluation = manifest.provenance.evaluation.get("sha256")
    for artifact in manifest.artifacts:
        if artifact.parity and evaluation:
            reference = artifact_reference(artifact)
            name = f"gates of {artifact.name} on {artifact.parity.runtime}"
            yield _task(f"measure-{artifact.name}", name, "test", [reference, data_reference(evaluation)], [])


def _task(
    uid: str, name: str, kind: str, taken: list[str], given: list[str], options: Mapping[str, Any] | None = None
) -> Json:
    inputs: list[Json] = [{"resource": {"ref": reference}} for reference in dict.fromkeys(taken)]
    if options:
        inputs.append({"parameters": [{"name": key, "value": str(value)} for key, value in sorted(options.items())]})
    task: Json = {"bom-ref": f"task:{uid}", "uid": uid, "name": name, "taskTypes": [kind], "inputs": inputs}
    if given:
        task["outputs"] = [{"type": "artifact", "resource": {"ref": reference}} for reference in dict.fromkeys(given)]
    return task
