"""The document: CycloneDX 1.6 as JSON, the same bytes for the same bundle."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from edgeseg import __version__, plugins
from edgeseg.manifest import records
from edgeseg.sbom.anomalies import Anomaly, known_anomalies
from edgeseg.sbom.cards import data_contents, formulation, model_cards
from edgeseg.sbom.lineage import gaps
from edgeseg.sbom.models import Parts, component, parts, properties
from edgeseg.sbom.packages import CONVERSION, ENGINE, Package, packages
from edgeseg.types import Bundle

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.vulnerability import Vulnerability

_BUNDLE = "bundle"
_NOWHERE = datetime(1970, 1, 1, tzinfo=UTC)


def bill_of_materials(bundle: Bundle) -> bytes:
    """The bill of materials of a bundle, CycloneDX 1.6, JSON in UTF-8.

    What is in it follows from the manifest and from edgeseg's own lists alone: not from this machine, and not from the
    clock. The serial number is derived from the digest of the manifest, the time is that of the conversion.

    Raises MissingDependency where cyclonedx-python-lib is not installed.
    """
    plugins.require("report", "a bill of materials")
    from cyclonedx.output.json import JsonV1Dot6

    found = parts(bundle)
    document = json.loads(JsonV1Dot6(_bom(bundle, found)).output_as_string())
    _add_what_the_library_lacks(document, bundle, found)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _bom(bundle: Bundle, found: Parts) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
    from cyclonedx.model.tool import ToolRepository

    used = packages(bundle.manifest)
    root = _root(bundle)
    libraries = {package.reference: _library(package) for package in used}
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"edgeseg:bundle:{_identity(bundle)}"),
        metadata=BomMetaData(
            component=root,
            timestamp=_created(bundle) or _NOWHERE,
            lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.POST_BUILD)],
            tools=ToolRepository(components=[_generator()]),
        ),
        components=[*found.components.values(), *libraries.values()],
        vulnerabilities=_vulnerabilities(used),
    )
    for reference, needs in found.needs.items():
        bom.register_dependency(found.components[reference], [found.components[need] for need in dict.fromkeys(needs)])
    inside = [c for name, c in found.components.items() if name.startswith("artifact:") or name == "golden"]
    on_device = [libraries[p.reference] for p in used if p.roles != (CONVERSION,)]
    bom.register_dependency(root, [*inside, *on_device])
    return bom


def _root(bundle: Bundle) -> Component:
    manifest = bundle.manifest
    root = component(
        manifest.name,
        "machine-learning-model",
        _BUNDLE,
        f"edgeseg bundle: segments {', '.join(manifest.classes[1:])} in ultrasound frames.",
        manifest_digest=manifest.digest,
        manifest_schema=manifest.schema,
        classes=", ".join(manifest.classes),
        converted_on=manifest.provenance.machine,
        lineage="; ".join(gaps(manifest)) or "complete: checkpoint, steps, artifacts and measurements are tied by hash",
    )
    root.version = _identity(bundle)[:12]
    return root


def _library(package: Package) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from packageurl import PackageURL

    alone = package.roles == (CONVERSION,)
    outside = ComponentScope.EXCLUDED if alone else ComponentScope.REQUIRED
    scope = ComponentScope.OPTIONAL if ENGINE in package.roles else outside
    return Component(
        name=package.name,
        version=package.version or None,
        type=ComponentType.LIBRARY,
        bom_ref=package.reference,
        scope=scope,
        purl=PackageURL("pypi", None, package.name, package.version or None),
        licenses=[LicenseFactory().make_from_string(package.licence)] if package.licence else [],
        properties=properties(
            roles=", ".join(package.roles),
            runtime=package.runtime,
            requires=package.requires,
            lowest_version=package.lowest,
            instead_of=package.instead_of,
        ),
    )


def _generator() -> Component:
    generator = component("edgeseg", "application", "generator")
    generator.version = __version__
    return generator


def _vulnerabilities(used: Iterable[Package]) -> Iterator[Vulnerability]:
    for package in used:
        for anomaly in known_anomalies():
            if anomaly.package == package.name and anomaly.concerns(package.version, package.lowest):
                yield _vulnerability(anomaly, package)


def _vulnerability(anomaly: Anomaly, package: Package) -> Vulnerability:
    from cyclonedx.model.impact_analysis import (
        ImpactAnalysisAffectedStatus,
        ImpactAnalysisJustification,
        ImpactAnalysisState,
    )
    from cyclonedx.model.vulnerability import (
        BomTarget,
        BomTargetVersionRange,
        Vulnerability,
        VulnerabilityAnalysis,
        VulnerabilitySource,
    )

    status = ImpactAnalysisAffectedStatus
    versions = []
    if package.version:
        versions.append(BomTargetVersionRange(version=package.version, status=status(anomaly.status(package.version))))
    if anomaly.range:
        versions.append(BomTargetVersionRange(range=anomaly.range, status=status.AFFECTED))
    return Vulnerability(
        bom_ref=f"anomaly:{anomaly.id}",
        id=anomaly.id,
        source=VulnerabilitySource(name="edgeseg, known anomalies"),
        description=anomaly.what,
        detail=anomaly.effect,
        recommendation=anomaly.advice or None,
        analysis=VulnerabilityAnalysis(
            state=ImpactAnalysisState.NOT_AFFECTED if anomaly.guard else ImpactAnalysisState.EXPLOITABLE,
            justification=ImpactAnalysisJustification.PROTECTED_BY_MITIGATING_CONTROL if anomaly.guard else None,
            detail=anomaly.guard or None,
        ),
        affects=[BomTarget(ref=package.reference, versions=versions)],
        properties=properties(kind=anomaly.kind, seen_in=", ".join(anomaly.seen), source=anomaly.source),
    )


def _add_what_the_library_lacks(document: dict[str, Any], bundle: Bundle, found: Parts) -> None:
    by_reference = {c["bom-ref"]: c for c in [document["metadata"]["component"], *document["components"]]}
    for reference, card in model_cards(bundle.manifest, _BUNDLE).items():
        by_reference[reference]["modelCard"] = card
    for reference, contents in data_contents(bundle.manifest).items():
        by_reference[reference]["data"] = [contents]
    made = formulation(bundle.manifest, found)
    if made:
        document["formulation"] = made
    if _created(bundle) is None:
        del document["metadata"]["timestamp"]


def _identity(bundle: Bundle) -> str:
    """The digest of the manifest; of an older one without, a hash over those of all its files."""
    manifest = bundle.manifest
    content = "".join(record.sha256 for record in records(manifest))
    return manifest.digest or hashlib.sha256(content.encode()).hexdigest()


def _created(bundle: Bundle) -> datetime | None:
    with contextlib.suppress(ValueError):
        created = datetime.fromisoformat(bundle.manifest.provenance.created)
        return created if created.tzinfo else created.replace(tzinfo=UTC)
    return None
