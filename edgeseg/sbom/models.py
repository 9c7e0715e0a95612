"""The models and data of a bundle as CycloneDX components, and which of them was made of which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.component import Component, ComponentType

from edgeseg.sbom.lineage import step_of
from edgeseg.types import Artifact, Bundle, FileRecord, Manifest

SOURCE, NETWORK, GOLDEN = "source", "network", "golden"
_MODEL, _DATA, _FILE = ComponentType.MACHINE_LEARNING_MODEL, ComponentType.DATA, ComponentType.FILE
_PREFIX = "edgeseg:"


@dataclass(slots=True)
class Parts:
    """What a bundle is made of.

    Attributes:
        components: models and data, by reference.
        needs: references of what each was made of.
        by_hash: SHA-256 to the reference of what has it.
    """

    components: dict[str, Component] = field(default_factory=dict)
    needs: dict[str, list[str]] = field(default_factory=dict)
    by_hash: dict[str, str] = field(default_factory=dict)

    def add(self, component: Component, sha256: str = "") -> str:
        """Take in a component; its reference."""
        reference = str(component.bom_ref.value)
        self.components[reference] = component
        self.needs.setdefault(reference, [])
        if sha256:
            self.by_hash.setdefault(sha256, reference)
        return reference


def parts(bundle: Bundle) -> Parts:
    """Source, network, data and artifacts of a bundle."""
    found = Parts()
    _add_data(found, bundle.manifest)
    _add_networks(found, bundle.manifest)
    _add_intermediates(found, bundle.manifest)
    for artifact in bundle.artifacts:
        _add_artifact(found, artifact, bundle)
    _add_golden(found, bundle)
    return found


def properties(**values: Any) -> list[Property]:
    """Named values of edgeseg's own; what is None or empty is left out."""
    kept = {name: value for name, value in values.items() if value not in (None, "", (), [], {})}
    return [Property(name=_PREFIX + name.replace("_", "-"), value=str(value)) for name, value in kept.items()]


def hashes(sha256: str | None) -> list[HashType]:
    """As a component has them."""
    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def data_reference(sha256: str) -> str:
    """Of a set of frames."""
    return f"data:{sha256[:16]}"


def artifact_reference(artifact: Artifact) -> str:
    """Of an artifact of the bundle."""
    return f"artifact:{artifact.name}"


def frames_used(manifest: Manifest) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Role, SHA-256 and record of every set of frames that is known by its hash."""
    made = manifest.provenance
    for role in ("calibration", "evaluation"):
        record: Mapping[str, Any] = getattr(made, role)
        if record.get("sha256"):
            yield role, record["sha256"], record
    trained = made.training.get("data", {})
    for split, sha256 in trained.get("sha256", {}).items() if isinstance(trained.get("sha256"), dict) else ():
        count = trained.get("frames", {}).get(split)
        yield "training", sha256, {"folder": trained.get("folder"), "split": split, "frames": count}
    pool = made.compression.get("pool", {})
    for sha256 in pool.get("sha256", ()):
        yield "pool of the compression", sha256, {"augmented": pool.get("frames")}


def _add_data(found: Parts, manifest: Manifest) -> None:
    sets: dict[str, dict[str, Any]] = {}
    for role, sha256, record in frames_used(manifest):
        known = sets.setdefault(sha256, {"roles": []})
        known["roles"] += [role] if role not in known["roles"] else []
        known.update(
            {key: record[key] for key in ("folder", "split", "frames", "masks") if record.get(key) is not None}
        )
    for sha256, known in sets.items():
        name = " ".join(str(known[key]) for key in ("folder", "split") if known.get(key)) or "frames"
        roles = ", ".join(known.pop("roles"))
        component = Component(
            name=name,
            type=_DATA,
            bom_ref=data_reference(sha256),
            hashes=hashes(sha256),
            description=f"Frames used for: {roles}. The hash is over all frames of the set, not of one file.",
            properties=properties(roles=roles, **known),
        )
        found.add(component, sha256)


def _add_networks(found: Parts, manifest: Manifest) -> None:
    made = manifest.provenance
    source, network = made.source, made.network
    component = Component(
        name=str(source.get("file") or source.get("name") or "source"),
        type=_MODEL,
        bom_ref=SOURCE,
        hashes=hashes(source.get("sha256")),
        description="The trained model that everything was made of and is measured against; not part of the bundle.",
        properties=properties(
            kind=source.get("kind"),
            architecture=(source.get("architecture") or {}).get("name"),
            weights_sha256="" if made.compression else network.get("sha256"),
        ),
    )
    reference = found.add(component, source.get("sha256", ""))
    found.needs[reference] = [data_reference(s) for role, s, _ in frames_used(manifest) if role == "training"]
    pretrained = made.training.get("encoder_weights") or {}
    if pretrained.get("sha256"):
        weights = Component(
            name=str(pretrained.get("file", "encoder weights")),
            type=_MODEL,
            bom_ref="encoder-weights",
            hashes=hashes(pretrained["sha256"]),
            description="What the training started from.",
        )
        found.needs[reference].append(found.add(weights, pretrained["sha256"]))
    if not made.compression:
        found.by_hash.setdefault(network.get("sha256", ""), SOURCE)
        return
    stages = [stage for stage in ("distill", "prune", "sparsify", "quantize") if stage in made.compression]
    compressed = Component(
        name=f"{component.name}, compressed",
        type=_MODEL,
        bom_ref=NETWORK,
        description="The network that was converted: what compression made of the source.",
        properties=properties(
            stages=", ".join(stages),
            weights_sha256=network.get("sha256"),
            macs=network.get("macs"),
            parameters=network.get("parameters"),
        ),
    )
    reference = found.add(compressed, network.get("sha256", ""))
    learned = [data_reference(s) for role, s, _ in frames_used(manifest) if role.startswith("pool")]
    found.needs[reference] = [SOURCE, *learned]


def _add_intermediates(found: Parts, manifest: Manifest) -> None:
    """What a step made that is not in the bundle, and another one may have used."""
    kept = {record.sha256 for artifact in manifest.artifacts for record in artifact.files}
    for step in manifest.provenance.steps:
        for number, sha256 in enumerate(s for s in step.get("outputs", ()) if s not in kept):
            name = f"{'-'.join(step.get('makes', ()))} (not in the bundle)"
            reference = f"intermediate:{sha256[:16]}"
            part = Component(name=name, type=_MODEL, bom_ref=reference, hashes=hashes(sha256))
            found.add(part, sha256)
            found.needs[reference] = _inputs(found, step) if number == 0 else []


def _add_artifact(found: Parts, artifact: Artifact, bundle: Bundle) -> None:
    step = step_of(artifact, bundle.manifest)
    component = Component(
        name=artifact.name,
        type=_MODEL,
        bom_ref=artifact_reference(artifact),
        hashes=hashes(artifact.sha256),
        description=f"The network in {artifact.precision} for engines that read {artifact.format}.",
        components=[_file(record, bundle) for record in artifact.files],
        properties=properties(
            format=artifact.format,
            precision=artifact.precision,
            size_bytes=artifact.size_bytes,
            made_by=step.get("step") if step else None,
        ),
    )
    reference = found.add(component, artifact.sha256)
    for record in artifact.files[1:]:
        found.by_hash.setdefault(record.sha256, f"file:{_relative(record, bundle)}")
    calibration = bundle.manifest.provenance.calibration.get("sha256")
    needs = _inputs(found, step or {}) or [NETWORK if NETWORK in found.components else SOURCE]
    if artifact.precision == "int8" and calibration:
        needs.append(data_reference(calibration))
    found.needs[reference] = needs


def _add_golden(found: Parts, bundle: Bundle) -> None:
    golden = bundle.manifest.golden
    if not golden:
        return
    records = [record for one in golden for record in (one.frame, one.mask, one.logits, getattr(one, "input", None))]
    component = Component(
        name="golden frames",
        type=_DATA,
        bom_ref=GOLDEN,
        description="Real frames with what the source made of them, for the self-test on the device.",
        components=[_file(record, bundle) for record in records if record],
        properties=properties(frames=len(golden)),
    )
    found.add(component)


def _inputs(found: Parts, step: Mapping[str, Any]) -> list[str]:
    """References of what a step took; files of one model count once."""
    references = [found.by_hash[s] for s in step.get("inputs", ()) if s in found.by_hash]
    return [reference for reference in dict.fromkeys(references) if not reference.startswith("file:")]


def _file(record: FileRecord, bundle: Bundle) -> Component:
    path = _relative(record, bundle)
    return Component(
        name=path,
        type=_FILE,
        bom_ref=f"file:{path}",
        hashes=hashes(record.sha256),
        properties=properties(size_bytes=record.size_bytes),
    )


def _relative(record: FileRecord, bundle: Bundle) -> str:
    return record.path.relative_to(bundle.path).as_posix()
