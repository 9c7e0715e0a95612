"""The chain from a checkpoint to the measurements of this report, link by link, each by hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edgeseg.report.document import Document
from edgeseg.types import Manifest

_LONG, _LARGEST = 6, 24  # lists and records with more entries than this are said by their number


@dataclass(frozen=True, slots=True)
class Part:
    """Something with a hash: a file, weights, frames. The hash is empty where none was recorded."""

    name: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """One step: what it took, what it made, how."""

    title: str
    took: tuple[Part, ...] = ()
    made: tuple[Part, ...] = ()
    options: str = ""


def chain(document: Document, manifest: Manifest) -> tuple[Link, ...]:
    """From the checkpoint over compression and conversion to what was measured at conversion and here."""
    return tuple(_links(document, manifest))


def line(value: Any) -> str:
    """Plain types in one line, as `key value, key value`; what is long by its number of entries."""
    if isinstance(value, Mapping):
        if len(value) > _LARGEST:
            return f"{len(value)} entries"
        return ", ".join(f"{key} {_nested(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        short = len(value) <= _LONG and not any(isinstance(item, Mapping) for item in value)
        return " ".join(_nested(item) for item in value) if short else f"{len(value)} entries"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "off" if value is None else str(value)


def _links(document: Document, manifest: Manifest) -> Iterator[Link]:
    made = manifest.provenance
    source = Part(_name(made.source), str(made.source.get("sha256", "")))
    if made.training:
        yield Link(
            "Training",
            (*_teacher(made.training), *_frames("training frames", made.training)),
            (source,),
            line(made.training),
        )
    yield Link("Trained model", made=(source,), options=line(made.source.get("architecture", {})))
    network = Part("weights that were converted", str(made.network.get("sha256", "")))
    for name, record in made.compression.items():
        if isinstance(record, Mapping):
            yield Link(f"Compression: {name}", _frames("frames it learned from", record), (), line(record))
    if made.network:
        yield Link(
            "Network",
            (source,),
            (network,),
            line({k: made.network[k] for k in ("macs", "parameters") if k in made.network}),
        )
    names = _known(manifest, source, network)
    for step in made.steps:
        took, gave = (
            tuple(Part(names.get(sha, "not named"), sha) for sha in step.get(side, ()))
            for side in ("inputs", "outputs")
        )
        title = f"{step.get('step', 'step')}: makes {'-'.join(step.get('makes', ()))}"
        yield Link(title, took, gave, line(step.get("options", {})))
    for what, frames in (("Calibration", made.calibration), ("Measurement at conversion", made.evaluation)):
        if frames:
            named = " ".join(str(frames.get(key, "")) for key in ("folder", "split")).strip()
            part = Part(f"{frames.get('frames', '?')} frames of {named}", str(frames.get("sha256", "")))
            yield Link(what, (part,))
    if document.frames and document.rows:
        part = Part(document.frames.name, document.frames.sha256)
        yield Link(f"Measurement here, {document.created}", (part,), options=document.machine)


def _name(source: Mapping[str, Any]) -> str:
    return str(source.get("file") or source.get("name") or source.get("kind") or "source")


def _known(manifest: Manifest, source: Part, network: Part) -> dict[str, str]:
    """What a hash is of."""
    names = {record.sha256: PurePosixPath(record.path).name for a in manifest.artifacts for record in a.files}
    return names | {part.sha256: part.name for part in (network, source) if part.sha256}


def _teacher(record: Mapping[str, Any]) -> tuple[Part, ...]:
    """The trained model that a student learned from."""
    teacher = record.get("teacher")
    return (Part(f"teacher {_name(teacher)}", str(teacher.get("sha256", ""))),) if isinstance(teacher, Mapping) else ()


def _frames(name: str, record: Mapping[str, Any]) -> tuple[Part, ...]:
    """Hashes of frames that a record of training or compression names."""
    hashes = record.get("sha256") or record.get("data", {}).get("sha256") or record.get("pool", {}).get("sha256")
    if isinstance(hashes, Mapping):
        return tuple(Part(f"{name}, {split}", str(sha)) for split, sha in hashes.items())
    if isinstance(hashes, str):
        hashes = [hashes]
    return tuple(Part(name, str(sha)) for sha in hashes or ())


def _nested(value: Any) -> str:
    text = line(value)
    return f"({text})" if isinstance(value, Mapping) else text
