"""A copy of the bundle under test to spoil: signed, in both forms, in memory where this machine has such a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.bundle import open_bundle
from edgeseg.fuzz.mutations import Kind
from edgeseg.keys import new_key
from edgeseg.manifest import MANIFEST, SIGNATURE, records
from edgeseg.signing import sign_bundle
from edgeseg.transport import SUFFIX, pack
from edgeseg.types import Bundle

_MEMORY = Path("/dev/shm")
_SUFFIXES = {".onnx": Kind.ONNX, ".xml": Kind.XML, ".bin": Kind.BIN, ".tflite": Kind.TFLITE}
_SUFFIXES |= {".png": Kind.PNG, ".npy": Kind.NPY}


@dataclass(frozen=True, slots=True)
class Workbench:
    """The copy.

    Attributes:
        root: a scratch folder, gone at the end.
        bundle: the opened copy; its folder may be spoilt as long as it is put right again.
        packed: its one-file form.
        keys: public keys of which one signed it.
        files: the files of each kind, as absolute paths.
    """

    root: Path
    bundle: Bundle
    packed: Path
    keys: tuple[Path, ...]
    files: dict[Kind, tuple[Path, ...]]


@contextlib.contextmanager
def workbench(bundle: Path, keys: Sequence[Path] = ()) -> Iterator[Workbench]:
    """Copy a bundle, and sign the copy with a key of its own where no keys are given.

    Args:
        bundle: a folder or the one-file form.
        keys: public keys of which one signed the bundle.

    Raises:
        SignatureError: the bundle is not signed by one of the keys.
        BundleError: not an intact bundle, or no room for the copy.
    """
    opened = open_bundle(bundle, trusted_keys=list(keys) or None)
    with _scratch() as root:
        folder = root / "bundle.edgeseg"
        shutil.copytree(opened.path, folder)
        if not keys:
            (folder / SIGNATURE).unlink(missing_ok=True)
            keys = (new_key("fuzz", root),)
            sign_bundle(folder, keys[0].with_suffix(".key"))
        copy = open_bundle(folder, trusted_keys=list(keys))
        packed = root / f"bundle{SUFFIX}"
        pack(copy, packed)
        yield Workbench(root, copy, packed, tuple(keys), _files(copy, packed))


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder, in memory if possible, that is also where this process unpacks to meanwhile."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-", dir=_MEMORY if in_memory else None) as name:
        tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = before


def _files(bundle: Bundle, packed: Path) -> dict[Kind, tuple[Path, ...]]:
    found: dict[Kind, list[Path]] = {
        Kind.MANIFEST: [bundle.path / MANIFEST],
        Kind.SIGNATURE: [bundle.path / SIGNATURE],
        Kind.TRANSPORT: [packed],
    }
    for record in records(bundle.manifest):
        found.setdefault(_SUFFIXES[record.path.suffix], []).append(record.path)
    return {kind: tuple(found[kind]) for kind in Kind if kind in found}
