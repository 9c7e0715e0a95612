"""A bundle as the runner sees it before anything of it goes to a board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.boards.hil.environment import BoardEntry
from edgeseg.bundle import open_bundle, read_papers
from edgeseg.errors import BoardUnfit, SignatureError
from edgeseg.manifest import digest, parse_manifest, records
from edgeseg.trust import parse_signatures
from edgeseg.types import Bundle


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle to prove on boards.

    Attributes:
        path: as it was given: a folder or one file.
        bundle: opened, every hash checked.
        digest: SHA-256 of its manifest's canonical form: its identity in records.
        key_ids: of the keys that signed it; none of the signatures is checked.
    """

    path: Path
    bundle: Bundle
    digest: str
    key_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people and records."""
        return self.path.name

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(record.size_bytes for record in records(self.bundle.manifest))

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of its artifacts, by path in the bundle."""
        root = self.bundle.path
        found = (record for artifact in self.bundle.artifacts for record in artifact.files)
        return {record.path.relative_to(root).as_posix(): record.sha256 for record in found}


def read_candidate(path: Path) -> Candidate:
    """Open a bundle. Raises as `edgeseg.open_bundle`."""
    bundle = open_bundle(path)
    papers = read_papers(bundle.path)
    signatures = () if papers.signature is None else parse_signatures(papers.signature, str(path))
    return Candidate(
        path, bundle, digest(parse_manifest(papers.manifest)), tuple(signature.key_id for signature in signatures)
    )


def check_signed(candidate: Candidate, entry: BoardEntry) -> None:
    """Raise BoardUnfit where the board is to get signed bundles only and this is none."""
    if not entry.trusted_keys:
        return
    try:
        open_bundle(candidate.path, trusted_keys=entry.trusted_keys)
    except SignatureError as error:
        raise BoardUnfit(f"{candidate.name} is not for {entry.name}: {error}") from error
