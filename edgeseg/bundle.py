"""Open bundles: a folder with a manifest, artifacts and golden frames. Everything is checked before any parser.

    NAME.edgeseg/
        manifest.json        everything below with its SHA-256 and size, and the evidence
        signature.json       who vouches for the manifest; absent where nobody signed
        artifacts/*.onnx *.xml *.bin *.tflite
        golden/NNN.png NNN.mask.png NNN.npy

The same in one file is the business of `edgeseg.transport`; `open_bundle` takes either.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from edgeseg.durable import os_errors
from edgeseg.errors import BundleError
from edgeseg.manifest import (
    LARGEST_MANIFEST,
    MANIFEST,
    SIGNATURE,
    check_names,
    convert_manifest,
    encode_manifest,
    map_records,
    parse_manifest,
    records,
)
from edgeseg.trust import LARGEST_SIGNATURE, Keys, Trusted, check_signatures, parse_signatures
from edgeseg.trust import trusted_keys as resolve_keys
from edgeseg.types import Artifact, Bundle, FileRecord, Manifest, Model, Signer

_BLOCK = 1 << 18
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_PLAIN = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


@dataclass(frozen=True, slots=True)
class Papers:
    """The files that a bundle has beside those it lists, as they were read: once.

    `signature` is None where there is no signature.json.
    """

    manifest: bytes
    signature: bytes | None


def open_bundle(path: Path | str, *, trusted_keys: Keys | None = None) -> Bundle:
    """Open a bundle and check the size and SHA-256 of every file it lists, before anything parses one.

    Args:
        path: a bundle folder, or the one file of `edgeseg pack`. That is unpacked into a folder which only this user
            can enter and which goes when the process ends; opened again, it is not unpacked again.
        trusted_keys: public keys, .pub files or folders of them, of which one must have signed the bundle. None leaves
            it to the environment variable EDGESEG_TRUSTED_KEYS (files and folders, separated as in PATH); where that
            is not set, no signature is asked for.

    Returns:
        The bundle; all paths in it are absolute. What is read of it later is checked again as it is read.

    Raises:
        SignatureError: not signed by a trusted key, or changed since, or signed after the key had expired. The
            signature is checked before anything else in the bundle is read.
        BundleError: not a bundle, a missing, changed, unlisted or misplaced file, or a malformed manifest.
        BundleTooNew: written by a newer edgeseg.
    """
    return open_trusted(Path(path), resolve_keys(trusted_keys))


def open_trusted(root: Path, trusted: Trusted | None) -> Bundle:
    """The same with keys by their id; None asks for no signature, whatever the environment says."""
    if root.is_file():
        from edgeseg.opened import open_packed  # which stands on this module

        return open_packed(root, trusted)
    papers = read_papers(root)
    root = root.resolve()
    manifest, signer = check_papers(papers, trusted, str(root), f"{root}/")
    check_files(root, manifest)
    return Bundle(root, map_records(manifest, lambda r: replace(r, path=root / r.path)), signer)


def read_papers(root: Path) -> Papers:
    """Read the manifest and the signatures of a bundle folder. Raises BundleError where that cannot be."""
    if not root.is_dir():
        raise BundleError(f"{root} is not a bundle, expected a folder with a {MANIFEST} (made by `edgeseg convert`)")
    root = root.resolve()
    with os_errors(f"{root} cannot be read"):
        if not (root / MANIFEST).is_file():
            raise BundleError(f"{root} has no {MANIFEST}: not a bundle, or one whose writing was interrupted")
        signed = os.path.lexists(root / SIGNATURE)
        return Papers(
            _read_small(root, MANIFEST, LARGEST_MANIFEST),
            _read_small(root, SIGNATURE, LARGEST_SIGNATURE) if signed else None,
        )


def check_papers(
    papers: Papers, trusted: Trusted | None, bundle: str, where: str = ""
) -> tuple[Manifest, Signer | None]:
    """The manifest, from the very object that was signed, and who signed it where keys are given.

    Args:
        papers: as they were read.
        trusted: keys by id; None asks for no signature.
        bundle: its name for messages.
        where: what stands before a file's name in messages.

    Raises SignatureError, BundleError or BundleTooNew as `open_bundle`, for these two files.
    """
    content = parse_manifest(papers.manifest, f"{where}{MANIFEST}")
    signatures = parse_signatures(papers.signature, f"{where}{SIGNATURE}") if papers.signature is not None else ()
    signer = check_signatures(content, signatures, trusted, bundle) if trusted is not None else None
    manifest = convert_manifest(content, f"{where}{MANIFEST}")
    check_names(manifest)
    return manifest, signer


def check_files(root: Path, manifest: Manifest) -> None:
    """Raise BundleError unless a folder holds exactly the files of its manifest, each with its size and SHA-256."""
    for record in records(manifest):
        for _ in checked_blocks(root / record.path, record, root):
            pass
    with os_errors(f"{root} cannot be read"):
        _check_nothing_else(root, manifest)


def read_record(record: FileRecord) -> bytes:
    """The content of a file of an opened bundle, of the size and SHA-256 that the manifest says.

    Raises BundleError where it was changed since, or cannot be read.
    """
    return b"".join(checked_blocks(record.path, record, record.path.parent))


def read_model(artifact: Artifact) -> Model:
    """The files of an artifact in memory, checked as they were read: what an engine may be given.

    Raises BundleError where one was changed since the bundle was opened, or cannot be read.
    """
    return Model(artifact.name, artifact.format, tuple(read_record(f) for f in artifact.files), artifact)


def file_record(path: Path, root: Path) -> FileRecord:
    """Hash and size of a file, with its path relative to `root`."""
    with path.open("rb") as stream:
        return FileRecord(
            path.relative_to(root), hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a staging folder."""
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))


def _read_small(root: Path, name: str, limit: int) -> bytes:
    with _opened(root / name, root) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise too_large(f"{root}/", name, limit)
        return stream.read(size)


def too_large(where: str, name: str, limit: int) -> BundleError:
    """The error for a manifest or signature of more than `limit` bytes, of which nothing is parsed."""
    size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
    return BundleError(f"{where}{name} is larger than {size}: not a {Path(name).stem}")


def checked_blocks(path: Path, record: FileRecord, root: Path) -> Iterator[bytes]:
    """The content of a file; BundleError at the latest after its last block, where it is not what the record says."""
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(path, root) as stream:
            found = os.fstat(stream.fileno()).st_size
            while size <= record.size_bytes and (block := stream.read(_BLOCK)):
                digest.update(block)
                size += len(block)
                yield block
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if size != record.size_bytes:
        raise BundleError(f"{path} has {max(found, size)} bytes, the manifest says {record.size_bytes}: it was changed")
    if digest.hexdigest() != record.sha256:
        raise BundleError(f"{path} does not have the SHA-256 of the manifest: it was changed, copy the bundle again")


def _opened(path: Path, root: Path) -> BinaryIO:
    """A plain file for reading. No link is followed below `root`, no device or pipe is waited for."""
    parts = path.relative_to(root).parts
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            folder = os.open(part, _PLAIN | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = folder
        file = os.open(parts[-1], _PLAIN, dir_fd=descriptor)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise _not_plain(path) from error
        raise
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_plain(path)
    return os.fdopen(file, "rb")


def _not_plain(path: Path) -> BundleError:
    return BundleError(f"{path} is missing or not a plain file inside the bundle: convert or copy it again")


def _check_nothing_else(root: Path, manifest: Manifest) -> None:
    """Raise BundleError for a file or folder that the manifest does not account for."""
    files = {root / r.path for r in records(manifest)} | {root / MANIFEST, root / SIGNATURE}
    folders = {parent for file in files for parent in file.parents if parent.is_relative_to(root)}
    for folder in sorted(folders):
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if path not in (folders if entry.is_dir(follow_symlinks=False) else files):
                    raise BundleError(f"{path} is not in the manifest: remove it, or copy the bundle again")
