"""Read and write bundles: a folder with a manifest, artifacts and golden frames. Hashes are checked before any parser.

    NAME.edgeseg/
        manifest.json        everything below with its SHA-256 and size, and the evidence
        artifacts/*.onnx *.xml *.bin *.tflite
        golden/NNN.png NNN.mask.png NNN.npy
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edgeseg.errors import BundleError, BundleTooNew
from edgeseg.types import Artifact, Bundle, FileRecord, Golden, Manifest

SCHEMA = 1
MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 16 << 20
_PART, _OLD = ".part", ".old"


class _Schema(msgspec.Struct):
    schema: int


def file_record(path: Path, root: Path) -> FileRecord:
    """Hash and size of a file, with its path relative to `root`."""
    data = path.read_bytes()
    return FileRecord(path.relative_to(root), hashlib.sha256(data).hexdigest(), len(data))


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle folder and check the size and SHA-256 of every file it lists, before anything parses one.

    Returns:
        The bundle; all paths in it are absolute.

    Raises:
        BundleError: not a bundle, a missing, changed, misplaced or surplus file, or a malformed manifest.
        BundleTooNew: written by a newer edgeseg.
    """
    root = Path(path)
    manifest_path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(f"{root} is not a bundle, expected a folder with a {MANIFEST} (made by `edgeseg convert`)")
    if not manifest_path.is_file():
        raise BundleError(f"{root} has no {MANIFEST}: not a bundle, or one whose writing was interrupted")
    if manifest_path.stat().st_size > _LARGEST_MANIFEST:
        raise BundleError(f"{manifest_path} is larger than {_LARGEST_MANIFEST >> 20} MiB: not a manifest")
    manifest = decode_manifest(manifest_path.read_bytes(), str(manifest_path))
    root = root.resolve()
    for record in _records(manifest):
        _check_file(record, root)
    return Bundle(root, _map_records(manifest, lambda r: replace(r, path=root / r.path)))


def decode_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Parse a manifest. Raises BundleError, or BundleTooNew for a later schema than this edgeseg knows."""
    try:
        found = msgspec.json.decode(data, type=_Schema).schema
        if found > SCHEMA:
            raise BundleTooNew(f"{where} has schema {found}, this edgeseg reads up to {SCHEMA}: upgrade edgeseg")
        return msgspec.json.decode(data, type=Manifest, dec_hook=_decode_path)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{where} is not a valid manifest: {error}") from error


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
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(target)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_PART, dir=target.parent))
    try:
        with _locked(staging):
            staging.chmod(0o755)
            yield staging
            _fsync_tree(staging)
            _swap(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def check_target(path: Path | str) -> None:
    """Raise BundleError unless a bundle may be written to `path`: nothing is there, or an older bundle."""
    target = Path(path)
    if target.exists() and not (target / MANIFEST).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise BundleError(f"{target} exists and is not a bundle: choose another -o, or remove it first")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a staging folder."""
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
        with contextlib.suppress(OSError), _locked(folder):
            if folder.suffix == _OLD and not target.exists():
                (folder / "bundle").rename(target)
            shutil.rmtree(folder)


def _swap(staging: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_OLD, dir=target.parent))
        with _locked(old):
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


def _records(manifest: Manifest) -> Iterator[FileRecord]:
    for artifact in manifest.artifacts:
        if not artifact.files:
            raise BundleError(f"artifact {artifact.name} lists no files: the manifest is damaged")
        yield from artifact.files
    for golden in manifest.golden:
        yield from (golden.frame, golden.mask, golden.logits)


def _check_file(record: FileRecord, root: Path) -> None:
    relative = PurePosixPath(record.path.as_posix())
    if relative.is_absolute() or ".." in relative.parts:
        raise BundleError(f"the manifest names {relative}, outside the bundle: it is damaged or hostile")
    path = root / relative
    if not path.is_file() or path.is_symlink() or not path.resolve().is_relative_to(root):
        raise BundleError(f"{path} is missing or not a plain file inside the bundle: convert or copy it again")
    size = path.stat().st_size
    if size != record.size_bytes:
        raise BundleError(f"{path} has {size} bytes, the manifest says {record.size_bytes}: it was changed")
    if hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
        raise BundleError(f"{path} does not have the SHA-256 of the manifest: it was changed, copy the bundle again")


def _map_records(manifest: Manifest, change: Any) -> Manifest:
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
