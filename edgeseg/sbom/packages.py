"""The Python packages of a bundle: its engines, what edgeseg needs beside them, and what converted it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from edgeseg.plugins import ENGINE_OF
from edgeseg.types import Manifest

DEVICE, ENGINE, CONVERSION = "device", "engine", "conversion"


@dataclass(frozen=True, slots=True)
class Package:
    """One package in the roles it has.

    Attributes:
        name: pip's.
        version: that took part in the conversion or the measurement; empty where only a device installs it.
        licence: SPDX expression; empty where it is not known.
        roles: some of DEVICE, ENGINE and CONVERSION.
        requires: the versions edgeseg admits on a device.
        lowest: the lowest version of an engine that the bundle admits.
        runtime: of an engine, edgeseg's name.
        instead_of: of an engine that takes another one's place on some boards, that one.
    """

    name: str
    version: str
    licence: str
    roles: tuple[str, ...]
    requires: str = ""
    lowest: str = ""
    runtime: str = ""
    instead_of: str = ""

    @property
    def reference(self) -> str:
        """Its package URL, which stands for it in the document."""
        version = f"@{self.version}" if self.version else ""
        return f"pkg:pypi/{self.name}{version}"


def packages(manifest: Manifest) -> tuple[Package, ...]:
    """Every package that has a part in a bundle, by name."""
    versions = _versions(manifest)
    runtimes = {ENGINE_OF[artifact.format] for artifact in manifest.artifacts}
    table = _table()
    engines = {name for name, entry in table[ENGINE].items() if entry["runtime"] in runtimes}
    names = sorted({*versions, *table[DEVICE], *engines})
    return tuple(_package(name, versions.get(name, ""), name in engines, manifest) for name in names)


def _package(name: str, version: str, engine: bool, manifest: Manifest) -> Package:
    entry: Mapping[str, Any] = next((part[name] for part in _table().values() if name in part), {})
    device = name in _table()[DEVICE] or name == "edgeseg"
    roles = ((DEVICE, device), (ENGINE, engine), (CONVERSION, bool(version)))
    return Package(
        name=name,
        version=version,
        licence=entry.get("licence", ""),
        roles=tuple(role for role, has in roles if has),
        requires=entry.get("requires", "") if device or engine else "",
        lowest=manifest.min_runtimes.get(entry["runtime"], "") if engine else "",
        runtime=entry["runtime"] if engine else "",
        instead_of=entry.get("instead_of", "") if engine else "",
    )


def _versions(manifest: Manifest) -> dict[str, str]:
    """What took part in the conversion, its compression and its measurement, by pip's names."""
    made = manifest.provenance
    versions: dict[str, str] = {**made.training.get("tools", {}), **made.compression.get("tools", {}), **made.tools}
    packages = {entry["runtime"]: name for name, entry in _table()[ENGINE].items() if "instead_of" not in entry}
    for runtime, version in _measured(manifest):
        # Another package in an engine's place says so: "2.14.0 (tflite-runtime)".
        number, _, instead = version.partition(" (")
        name = instead.removesuffix(")") or packages.get(runtime)
        if name:
            versions.setdefault(name, number)
    return versions


def _measured(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for artifact in manifest.artifacts:
        for baseline in artifact.baselines:
            yield baseline.runtime, baseline.version


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(files("edgeseg.sbom").joinpath("packages.toml").read_text("utf-8"))
