"""Who made what with which versions."""

from __future__ import annotations

from importlib import metadata

from edgeseg import __version__


def tool_versions(*packages: str) -> dict[str, str]:
    """Versions of edgeseg and of these packages; a package that is not installed is left out."""
    versions = {"edgeseg": __version__}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
