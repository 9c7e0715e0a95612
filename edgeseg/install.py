"""Put a bundle in the place a device runs it from: checked, durable, in one step, and never an older one unasked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgeseg.bundle import Papers, check_files, check_papers, checked_blocks, open_trusted, read_papers
from edgeseg.durable import check_target, new_folder, os_errors
from edgeseg.errors import BundleError, SignatureError
from edgeseg.keys import now
from edgeseg.manifest import MANIFEST, SIGNATURE, digest, parse_manifest, records
from edgeseg.transport import extract
from edgeseg.trust import TRUSTED_KEYS, Keys, Trusted, check_current
from edgeseg.trust import trusted_keys as resolve_keys
from edgeseg.types import Bundle, Manifest

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one bundle from another: its name, when it was made (UTC, ISO 8601) and the digest of its manifest."""

    name: str
    created: str
    digest: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did.

    Attributes:
        bundle: in its place, opened there.
        version: of that bundle.
        replaced: the version that was there; None where there was none, or none that could be read.
    """

    bundle: Bundle
    version: Version
    replaced: Version | None


def install(
    source: Path | str,
    target: Path | str,
    *,
    trusted_keys: Keys | None = None,
    unsigned: bool = False,
    allow_older: bool = False,
) -> Installed:
    """Check a bundle, write it durably beside `target` and give it that name, by one rename.

    At every moment, a kill or a power cut included, `target` is the older bundle or the new one, whole.

    Args:
        source: a bundle folder or the one file of `edgeseg pack`.
        target: the bundle folder to become; an older bundle there is replaced.
        trusted_keys: as `edgeseg.open_bundle`; here the key must not have expired by today either.
        unsigned: accept a bundle without looking at its signature, where no keys are set.
        allow_older: accept a bundle that was made before the one that is there.

    Raises:
        SignatureError: no keys are given or set, or none of them signed the bundle, or the one that did has expired.
        BundleError: not a sound bundle, older than the one at `target`, no room or no right to write, or `target`
            exists and is not a bundle.
        BundleTooNew: written by a newer edgeseg.
    """
    trusted = resolve_keys(trusted_keys)
    if trusted is None and not unsigned:
        raise SignatureError(
            f"{source} cannot be installed without keys to trust: give --key, set {TRUSTED_KEYS}, or say --unsigned"
        )
    place = Path(target)
    with os_errors(f"{source} cannot be installed to {target}"):
        check_target(place)
        with new_folder(place) as staging:
            _fill(staging, Path(source), trusted)
            staged = open_trusted(staging, trusted)
            check_current(staged.signer, trusted or {}, now(), str(source))
            version, replaced = _version(staging), _version_there(place)
            if replaced and _time(version) < _time(replaced) and not allow_older:
                raise BundleError(
                    f"{source} was made {version.created or 'nobody knows when'}, before the bundle at {target} "
                    f"({replaced.created}): an older bundle may bring old faults back, say --allow-older to do it"
                )
        return Installed(open_trusted(place, trusted), version, replaced)


def _fill(staging: Path, source: Path, trusted: Trusted | None) -> None:
    """Write the bundle into an empty folder; its signature is checked before its first file is read."""
    if source.is_file():
        extract(source, staging, trusted)
        return
    papers = read_papers(source)
    root = source.resolve()
    manifest, _ = check_papers(papers, trusted, str(root), f"{root}/")
    check_files(root, manifest)
    _copy(papers, manifest, root, staging)


def _copy(papers: Papers, manifest: Manifest, root: Path, staging: Path) -> None:
    (staging / MANIFEST).write_bytes(papers.manifest)
    if papers.signature is not None:
        (staging / SIGNATURE).write_bytes(papers.signature)
    for record in records(manifest):
        path = staging / record.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.writelines(checked_blocks(root / record.path, record, root))


def _version_there(place: Path) -> Version | None:
    """The version at `place`; None where nothing is there, or something that was damaged and so cannot be run."""
    try:
        return _version(place)
    except BundleError:
        return None


def _version(folder: Path) -> Version:
    papers = read_papers(folder)
    manifest, _ = check_papers(papers, None, str(folder))
    return Version(manifest.name, manifest.provenance.created, digest(parse_manifest(papers.manifest)))


def _time(version: Version) -> datetime:
    """When it was made; a bundle that does not say so, or not readably, is older than every other."""
    try:
        made = datetime.fromisoformat(version.created)
    except ValueError:
        return _NEVER
    return made if made.tzinfo else made.replace(tzinfo=UTC)
