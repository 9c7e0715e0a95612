"""Read and write bundles: a folder with a manifest, artifacts and golden frames. Hashes are checked before any parser.

    NAME.edgeseg/
        manifest.json        everything below with its SHA-256 and size, and the evidence
        artifacts/*.onnx *.xml *.bin *.tflite
        golden/NNN.png NNN.mask.png NNN.npy

The same in one file is the business of `edgeseg.transport`; `open_bundle` takes either.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import msgspec

from edgeseg.errors import BundleError, BundleTooNew
from edgeseg.types import Artifact, Bundle, FileRecord, Golden, Manifest

SCHEMA = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 << 20
# Safe on every file system and in every shell; no hidden files, no reserved characters.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_NAME = 100
_PART, _OLD = ".part", ".old"


class _Schema(msgspec.Struct):
    schema: int


def file_record(path: Path, root: Path) -> FileRecord:
    """Hash and size of a file, with its path relative to `root`."""
    return FileRecord(path.relative_to(root), _sha256(path), path.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle and check the size and SHA-256 of every file it lists, before anything parses one.

    Args:
        path: a bundle folder, or the one file of `edgeseg pack`. That is unpacked into a folder which only this user
            can enter and which goes when the process ends; opened again, it is not unpacked again.

    Returns:
        The bundle; all paths in it are absolute.

    Raises:
        BundleError: not a bundle, a missing, changed or misplaced file, or a malformed manifest.
        BundleTooNew: written by a newer edgeseg.
    """
    root = Path(path)
    manifest_path = root / MANIFEST
    if root.is_file():
        from edgeseg.opened import open_packed  # which stands on this module

        return open_packed(root)
    if not root.is_dir():
        raise BundleError(f"{root} is not a bundle, expected a folder with a {MANIFEST} (made by `edgeseg convert`)")
    if not manifest_path.is_file():
        raise BundleError(f"{root} has no {MANIFEST}: not a bundle, or one whose writing was interrupted")
    if manifest_path.stat().st_size > LARGEST_MANIFEST:
        raise BundleError(f"{manifest_path} is larger than {LARGEST_MANIFEST >> 20} MiB: not a manifest")
    manifest = decode_manifest(manifest_path.read_bytes(), str(manifest_path))
    root = root.resolve()
    check_names(manifest)
    for record in records(manifest):
        _check_file(record, root)
    return Bundle(root, map_records(manifest, lambda r: replace(r, path=root / r.path)))


def check_names(manifest: Manifest) -> None:
    """Raise BundleError unless each file has a name of its own inside the bundle, whatever the file system folds."""
    paths = [PurePosixPath(r.path.as_posix()) for r in records(manifest)]
    for path in paths:
        shown = ascii(str(path)[:_LONGEST_NAME])
        if path.is_absolute() or ".." in path.parts:
            raise BundleError(f"the manifest names {shown}, outside the bundle: it is damaged or hostile")
        if not path.parts or not all(map(_NAME.fullmatch, path.parts)) or len(str(path)) > _LONGEST_NAME:
            raise BundleError(f"the manifest names {shown}, no portable file name: it is damaged or hostile")
    folders = {folder for path in paths for folder in path.parents[:-1]}
    folded = Counter(str(p).lower() for p in (PurePosixPath(MANIFEST), *paths, *folders))
    name, count = folded.most_common(1)[0]
    if count > 1:
        raise BundleError(f"the manifest names {name} twice, or in two spellings: it is damaged or hostile")


def decode_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Parse a manifest. Raises BundleError, or BundleTooNew for a later schema than this edgeseg knows."""
    try:
        found = msgspec.json.decode(data, type=_Schema).schema
        if found > SCHEMA:
            raise BundleTooNew(f"{where} has schema {found}, this edgeseg reads up to {SCHEMA}: upgrade edgeseg")
        return msgspec.json.decode(data, type=Manifest, dec_hook=_decode_path)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where} is not a valid manifest: {' '.join(str(error).split())}") from error


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON with sorted keys, byte for byte reproducible."""
    return msgspec.json.format(msgspec.json.encode(manifest, enc_hook=_encode_path, order="deterministic")) + b"\n"


@contextlib.contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """A staging folder that becomes `path` when the block ends well, and vanishes otherwise.

    Every file and folder is fsynced, then one rename makes the result visible: neither a kill nor a power cut leaves
    half of it behind. An older bundle at `path` is replaced; anything else there is refused. Staging folders of writers
    that were killed are removed.

    Raises:
        BundleError: where `path` exists and is not a bundle.
        OSError: where the parent cannot be written.
    """
    target = Path(path).absolute()
    check_target(target)
    with _staging(target) as staging:
        staging.chmod(0o755)
        yield staging
        _fsync_tree(staging)
        _swap(staging, target)


@contextlib.contextmanager
def new_file(path: Path | str) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends well, as whole and as durable as a `new_folder`.

    Raises OSError where the parent cannot be written.
    """
    target = Path(path).absolute()
    with _staging(target) as staging:
        part = staging / target.name
        with part.open("xb") as stream:
            yield stream
        _fsync(part)
        part.replace(target)
        _fsync(target.parent)


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write in, gone when the block ends unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(target)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_PART, dir=target.parent))
    try:
        with locked(staging):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(path: Path | str) -> None:
    """Raise BundleError unless a bundle may be written to `path`: nothing is there, or an older bundle."""
    target = Path(path)
    if target.exists() and not (target / MANIFEST).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise BundleError(f"{target} exists and is not a bundle: choose another -o, or remove it first")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a staging folder."""
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends. Raises BlockingIOError where another one has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _clear_remains(target: Path) -> None:
    """Remove what killed writers left; put the older bundle back where the kill came between the two renames."""
    for folder in target.parent.iterdir():
        if not (folder.name.startswith(f".{target.name}.") and folder.suffix in (_PART, _OLD) and folder.is_dir()):
            continue
        with contextlib.suppress(OSError), locked(folder):
            if folder.suffix == _OLD and not target.exists():
                (folder / "bundle").rename(target)
            shutil.rmtree(folder)


def _swap(staging: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_OLD, dir=target.parent))
        with locked(old):
            target.rename(old / "bundle")
            staging.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(target)
    _fsync(target.parent)


def _fsync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            _fsync(Path(folder) / name)
        _fsync(Path(folder))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def records(manifest: Manifest) -> Iterator[FileRecord]:
    """Every file of a bundle but the manifest. Raises BundleError for an artifact without files."""
    for artifact in manifest.artifacts:
        if not artifact.files:
            raise BundleError(f"artifact {artifact.name} lists no files: the manifest is damaged")
        yield from artifact.files
    for golden in manifest.golden:
        yield from (golden.frame, golden.mask, golden.logits)


def _check_file(record: FileRecord, root: Path) -> None:
    path = root / record.path
    if not path.is_file() or path.is_symlink() or not path.resolve().is_relative_to(root):
        raise BundleError(f"{path} is missing or not a plain file inside the bundle: convert or copy it again")
    size = path.stat().st_size
    if size != record.size_bytes:
        raise BundleError(f"{path} has {size} bytes, the manifest says {record.size_bytes}: it was changed")
    if _sha256(path) != record.sha256:
        raise BundleError(f"{path} does not have the SHA-256 of the manifest: it was changed, copy the bundle again")


def map_records(manifest: Manifest, change: Callable[[FileRecord], FileRecord]) -> Manifest:
    """The manifest with every file record changed."""

    def artifact(a: Artifact) -> Artifact:
        return replace(a, files=tuple(change(f) for f in a.files))

    def golden(g: Golden) -> Golden:
        return Golden(change(g.frame), change(g.mask), change(g.logits))

    return replace(
        manifest,
        artifacts=tuple(artifact(a) for a in manifest.artifacts),
        golden=tuple(golden(g) for g in manifest.golden),
    )


def _encode_path(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    raise NotImplementedError(f"{type(value)} has no place in a manifest")


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind} has no place in a manifest")
