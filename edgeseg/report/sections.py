"""What the sections of a page say, in words and in keys of figures; how they look is the template's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeseg.evidence import Execution
from edgeseg.execution import recorded
from edgeseg.gates import Judged
from edgeseg.report.document import ABSENT, Document, Measured
from edgeseg.report.judging import (
    artifact_of,
    judged_against_source,
    judged_at_conversion,
    judged_here,
    limit_text,
)
from edgeseg.report.verdict import verdict_of
from edgeseg.scan_area import describe
from edgeseg.strata import missing
from edgeseg.types import Artifact, Manifest, Preprocess

STRATA = {
    "empty": "Empty frames",
    "small": "Small structures",
    "worst-tenth": "Worst tenth of the frames",
    "exam": "Worst exam, each figure its own",
}


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate with the keys of its figures: at conversion, and here on each runtime of the table."""

    name: str
    limit: str
    conversion: str
    here: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StratumLine:
    """A stratum with the prefix of its figures, or the reason why there are none."""

    name: str
    where: str
    prefix: str
    missing: str


@dataclass(frozen=True, slots=True)
class ArtifactGates:
    """Everything about the gates of one artifact; `intervals` says of each row whether any of its figures has one."""

    artifact: Artifact
    rows: tuple[Measured, ...]
    intervals: tuple[bool, ...]
    lines: tuple[GateLine, ...]
    source_lines: tuple[GateLine, ...]
    strata: tuple[StratumLine, ...]


@dataclass(frozen=True, slots=True)
class ExecutionLine:
    """What an engine ran here, beside what it ran at conversion."""

    row: Measured
    here: str
    conversion: str
    recorded: bool
    faults: tuple[str, ...]


def gate_tables(document: Document, manifest: Manifest) -> tuple[ArtifactGates, ...]:
    """One an artifact, in the order of the manifest."""
    return tuple(_gates_of(artifact, document, manifest) for artifact in manifest.artifacts)


def untested(document: Document, manifest: Manifest) -> tuple[str, ...]:
    """What no frame tested, each sentence once."""
    sentences = [
        f"At conversion: {text}." for a in manifest.artifacts if a.parity is not None for text in missing(a.parity)
    ]
    if any(a.parity is not None and not a.parity.strata for a in manifest.artifacts):
        sentences.append("At conversion: no strata were recorded, this bundle is older than they are.")
    small = manifest.gates.small_share
    for row in document.artifacts:
        parity = row.parity(small)
        sentences += [f"Here: {text}." for text in missing(parity)] if parity else []
    return tuple(dict.fromkeys(sentences))


def executions(document: Document, manifest: Manifest) -> tuple[ExecutionLine, ...]:
    """One a row that ran."""
    return tuple(_execution(row, manifest) for row in document.rows if row.executed is not None)


def reasons(document: Document, manifest: Manifest) -> tuple[tuple[Measured, tuple[str, ...]], ...]:
    """The rows that did not pass, each with everything that is wrong."""
    found = ((row, verdict_of(row, document, manifest).reasons) for row in document.artifacts)
    return tuple((row, why) for row, why in found if why)


def facts(document: Document, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """What this release is, each (what, in words)."""
    made, network = manifest.provenance, manifest.provenance.network
    architecture = made.source.get("architecture") or {}
    kind = architecture.get("name") or made.source.get("name") or "not recorded"
    return (
        ("Bundle", f"{document.bundle}, schema {manifest.schema}"),
        ("Digest", manifest.digest or f"none in schema 1; SHA-256 of manifest.json: {document.manifest_sha256}"),
        (
            "Network",
            ", ".join(
                filter(
                    None,
                    (
                        str(kind),
                        _count(network.get("macs"), "multiply-accumulates a frame"),
                        _count(network.get("parameters"), "parameters"),
                    ),
                )
            ),
        ),
        ("Classes", ", ".join(f"{i} {name}" for i, name in enumerate(manifest.classes))),
        ("Preprocessing", describe_preprocess(manifest.preprocess)),
        ("Signature", describe_signing(document)),
        ("Converted", ", ".join(filter(None, (made.created, made.machine))) or "not recorded"),
        ("This report", ", ".join(filter(None, (document.created, f"edgeseg {document.edgeseg}")))),
        ("Made on", document.machine),
        ("Engines here", ", ".join(_engines(document)) or "none"),
        (
            "Frames here",
            f"{document.frames.name}; compared with {document.frames.reference}" if document.frames else "none",
        ),
    )


def describe_preprocess(preprocess: Preprocess) -> str:
    """In words: outside the graph, then inside it."""
    p = preprocess
    colour = "gray" if p.channels == 1 else "RGB"
    resize = "bilinear" if p.interpolation == "linear" else "area-averaging"
    mean, std = (" ".join(f"{v:g}" for v in values) for values in (p.mean, p.std))
    size = f"{p.height} x {p.width} pixels (height x width, {resize})"
    seen = "" if p.scan_area is None else f"{describe(p.scan_area)}, "
    return f"{seen}{colour}, resized to {size}; in the graph (pixel / 255 - {mean}) / {std}"


def describe_signing(document: Document) -> str:
    """In words."""
    signing = document.signing
    if signing.signer:
        return f"{signing.signer}; checked when this report was made"
    if signing.unchecked:
        count = signing.unchecked
        return f"{count} signature{'' if count == 1 else 's'}, not checked: no trusted key was given"
    return "not signed"


def _gates_of(artifact: Artifact, document: Document, manifest: Manifest) -> ArtifactGates:
    rows = tuple(row for row in document.artifacts if row.artifact == artifact.name)
    ran = tuple(row for row in rows if row.differences)
    tables = [judged_at_conversion(artifact, manifest), *(judged_here(row, document, manifest) for row in ran)]
    gates = {gate.gate: gate for table in reversed(tables) for gate in table}
    order = dict.fromkeys(gate.gate for table in tables for gate in table)
    return ArtifactGates(
        artifact=artifact,
        rows=ran,
        intervals=tuple(any(gate.interval for gate in table) for table in tables[1:]),
        lines=tuple(
            _line(gates[name], f"{artifact.name}/conversion", [f"{row.key}/here" for row in ran]) for name in order
        ),
        source_lines=tuple(
            _line(gate, f"{artifact.name}/source", ()) for gate in judged_against_source(artifact, manifest)
        ),
        strata=tuple(_strata(artifact, ran, document, manifest)),
    )


def _line(gate: Judged, conversion: str, here: Sequence[str]) -> GateLine:
    name = gate.name[0].upper() + gate.name[1:]
    return GateLine(name, limit_text(gate), f"{conversion}/{gate.gate}", tuple(f"{h}/{gate.gate}" for h in here))


def _strata(
    artifact: Artifact, rows: Sequence[Measured], document: Document, manifest: Manifest
) -> Iterator[StratumLine]:
    """At conversion, and here where there are frames enough to divide: not of a handful of golden frames."""
    for stratum in artifact.parity.strata if artifact.parity else ():
        prefix = f"{artifact.name}/conversion/strata/{stratum.name}"
        yield StratumLine(STRATA.get(stratum.name, stratum.name), "at conversion", prefix, stratum.missing)
    if document.frames is None or document.frames.golden:
        return
    for row in rows:
        parity = row.parity(manifest.gates.small_share)
        for stratum in parity.strata if parity else ():
            prefix = f"{row.key}/here/strata/{stratum.name}"
            name = STRATA.get(stratum.name, stratum.name)
            yield StratumLine(name, f"here, on {row.runtime}", prefix, stratum.missing)


def _execution(row: Measured, manifest: Manifest) -> ExecutionLine:
    assert row.executed is not None
    artifact = artifact_of(row, manifest)
    baseline = recorded(artifact, row.runtime, row.device) if artifact else None
    then = "not recorded" if baseline is None else f"{_layers(baseline.executed)}; {row.runtime} {baseline.version}"
    return ExecutionLine(row, _layers(row.executed), then, baseline is not None, row.faults)


def _layers(executed: Execution) -> str:
    """As in `27: 25 XNNPACK, 2 CPU; 19 int8, 8 fp32`."""
    where = _counts(executed.providers) or executed.provider
    how = _counts(executed.precisions) or f"{executed.int8_layers} int8"
    return f"{executed.layers}: {where}; {how}"


def _counts(layers: Mapping[str, int]) -> str:
    """The most first."""
    return ", ".join(f"{count} {name}" for name, count in sorted(layers.items(), key=lambda item: (-item[1], item[0])))


def _engines(document: Document) -> list[str]:
    return list(dict.fromkeys(f"{row.runtime} {row.version}" for row in document.artifacts if row.state != ABSENT))


def _count(value: object, unit: str) -> str:
    return f"{value:,} {unit}" if isinstance(value, int) else ""
