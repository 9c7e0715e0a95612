"""The models and data of a bundle as CycloneDX components, and which of them was made of which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeseg.sbom.lineage import step_of
from edgeseg.types import Artifact, Bundle, FileRecord, Manifest

if TYPE_CHECKING:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component

SOURCE, NETWORK, GOLDEN = "source", "network", "golden"
_MODEL, _DATA, _FILE = "machine-learning-model", "data", "file"
_STAGES = ("distill", "prune", "sparsify", "quantize")
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

    def add(self, part: Component, sha256: str = "") -> str:
        """Take in a component; its reference."""
        reference = str(part.bom_ref.value)
        self.components[reference] = part
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


def component(
    name: str,
    kind: str,
    reference: str,
    description: str = "",
    *,
    sha256: str | None = None,
    inside: Iterable[Component] = (),
    **values: Any,
) -> Component:
    """A component that is no package.

    Args:
        name: for people.
        kind: CycloneDX's name of its type.
        reference: unique in the document.
        description: what it is.
        sha256: of it, where there is one.
        inside: the files it consists of.
        values: properties of edgeseg's own, see `properties`.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=name,
        type=ComponentType(kind),
        bom_ref=reference,
        description=description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        components=inside,
        properties=properties(**values),
    )


def properties(**values: Any) -> list[Property]:
    """Named values of edgeseg's own; what is None or empty is left out."""
    from cyclonedx.model import Property

    kept = {name: value for name, value in values.items() if value not in (None, "", (), [], {})}
    return [Property(name=_PREFIX + name.replace("_", "-"), value=str(value)) for name, value in kept.items()]


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
        text = f"Frames used for: {roles}. The hash is over all frames of the set, not of one file."
        found.add(component(name, _DATA, data_reference(sha256), text, sha256=sha256, roles=roles, **known), sha256)


def _add_networks(found: Parts, manifest: Manifest) -> None:
    made = manifest.provenance
    source, network = made.source, made.network
    name = str(source.get("file") or source.get("name") or "source")
    trained = component(
        name,
        _MODEL,
        SOURCE,
        "The trained model that everything was made of and is measured against; not part of the bundle.",
        sha256=source.get("sha256"),
        source_kind=source.get("kind"),
        architecture=(source.get("architecture") or {}).get("name"),
        weights_sha256="" if made.compression else network.get("sha256"),
    )
    found.needs[found.add(trained, source.get("sha256", ""))] = [
        *_training_data(manifest),
        *_pretrained(found, manifest),
    ]
    if not made.compression:
        found.by_hash.setdefault(network.get("sha256", ""), SOURCE)
        return
    compressed = component(
        f"{name}, compressed",
        _MODEL,
        NETWORK,
        "The network that was converted: what compression made of the source.",
        stages=", ".join(stage for stage in _STAGES if stage in made.compression),
        weights_sha256=network.get("sha256"),
        macs=network.get("macs"),
        parameters=network.get("parameters"),
    )
    learned = [data_reference(s) for role, s, _ in frames_used(manifest) if role.startswith("pool")]
    found.needs[found.add(compressed, network.get("sha256", ""))] = [SOURCE, *learned]


def _training_data(manifest: Manifest) -> list[str]:
    return [data_reference(s) for role, s, _ in frames_used(manifest) if role == "training"]


def _pretrained(found: Parts, manifest: Manifest) -> list[str]:
    weights = manifest.provenance.training.get("encoder_weights") or {}
    sha256 = weights.get("sha256")
    if not sha256:
        return []
    name, text = str(weights.get("file", "encoder weights")), "What the training started from."
    return [found.add(component(name, _MODEL, "encoder-weights", text, sha256=sha256), sha256)]


def _add_intermediates(found: Parts, manifest: Manifest) -> None:
    """What a step made that is not in the bundle, and another one may have used."""
    kept = {record.sha256 for artifact in manifest.artifacts for record in artifact.files}
    for step in manifest.provenance.steps:
        name = f"{'-'.join(step.get('makes', ()))} (not in the bundle)"
        for sha256 in (s for s in step.get("outputs", ()) if s not in kept):
            reference = found.add(component(name, _MODEL, f"intermediate:{sha256[:16]}", sha256=sha256), sha256)
            found.needs[reference] = _inputs(found, step)


def _add_artifact(found: Parts, artifact: Artifact, bundle: Bundle) -> None:
    step = step_of(artifact, bundle.manifest) or {}
    part = component(
        artifact.name,
        _MODEL,
        artifact_reference(artifact),
        f"The network in {artifact.precision} for engines that read {artifact.format}.",
        sha256=artifact.sha256,
        inside=[_file(record, bundle) for record in artifact.files],
        format=artifact.format,
        precision=artifact.precision,
        size_bytes=artifact.size_bytes,
        made_by=step.get("step"),
    )
    reference = found.add(part, artifact.sha256)
    for record in artifact.files[1:]:
        found.by_hash.setdefault(record.sha256, f"file:{_relative(record, bundle)}")
    calibration = bundle.manifest.provenance.calibration.get("sha256")
    needs = _inputs(found, step) or [NETWORK if NETWORK in found.components else SOURCE]
    if artifact.precision == "int8" and calibration:
        needs.append(data_reference(calibration))
    found.needs[reference] = needs


def _add_golden(found: Parts, bundle: Bundle) -> None:
    golden = bundle.manifest.golden
    if not golden:
        return
    records = [r for one in golden for r in (one.frame, one.mask, one.logits, getattr(one, "input", None)) if r]
    text = "Real frames with what the source made of them, for the self-test on the device."
    inside = [_file(record, bundle) for record in records]
    found.add(component("golden frames", _DATA, GOLDEN, text, inside=inside, frames=len(golden)))


def _inputs(found: Parts, step: Mapping[str, Any]) -> list[str]:
    """References of what a step took; files of one model count once."""
    references = [found.by_hash[s] for s in step.get("inputs", ()) if s in found.by_hash]
    return [reference for reference in dict.fromkeys(references) if not reference.startswith("file:")]


def _file(record: FileRecord, bundle: Bundle) -> Component:
    path = _relative(record, bundle)
    return component(path, _FILE, f"file:{path}", sha256=record.sha256, size_bytes=record.size_bytes)


def _relative(record: FileRecord, bundle: Bundle) -> str:
    return record.path.relative_to(bundle.path).as_posix()
