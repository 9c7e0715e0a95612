"""The manifest of a bundle: its JSON, its canonical form and digest, the names it may list.

Damage is told by the manifest's own digest: SHA-256 of its canonical form (RFC 8785) without the digest. Two files of
equal content are equal, whatever the order of their fields and their white space; anything that a strict writer of JSON
would not have written (a number with other digits than the shortest, a field twice) is refused, so that no byte can
change unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from re import compile as pattern
from typing import Any

import msgspec
import rfc8785

from edgeseg.errors import BadInput, BundleError, BundleTooNew
from edgeseg.scan_area import check_shares
from edgeseg.types import Artifact, FileRecord, Golden, Manifest

SCHEMA = 2
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
LARGEST_MANIFEST = 16 << 20
_DIGEST = "digest"
_FIRST_WITH_DIGEST = 2
# Safe on every file system and in every shell; no hidden files, no reserved characters.
_NAME = pattern(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_NAME = 100
_LARGEST_INPUT = 1 << 24  # pixels of a network's input: 4096x4096


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest with its digest as indented JSON with sorted keys, byte for byte reproducible."""
    # Through JSON, which has no NaN: a refused artifact's evidence may hold one, and it becomes null.
    return seal(msgspec.json.decode(msgspec.json.encode(manifest, enc_hook=_encode_path)))


def seal(content: dict[str, Any]) -> bytes:
    """The JSON object of a manifest as it is written, with its digest set."""
    content = {**content, _DIGEST: digest(content)}
    return msgspec.json.format(msgspec.json.encode(content, order="sorted")) + b"\n"


def decode_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Parse a manifest and check its digest.

    Raises:
        BundleError: it is no manifest, or it was changed.
        BundleTooNew: it has a later schema than this edgeseg knows.
    """
    return convert_manifest(parse_manifest(data, where), where)


def parse_manifest(data: bytes, where: str = MANIFEST) -> dict[str, Any]:
    """The JSON object of a manifest, read strictly, its schema and digest checked; raises as `decode_manifest`."""
    return parse_sealed(data, where, "manifest", SCHEMA, _FIRST_WITH_DIGEST)


def parse_sealed(data: bytes, where: str, what: str, newest: int, first_with_digest: int = 1) -> dict[str, Any]:
    """The JSON object of what `seal` wrote, for a kind of file that has had a digest since schema `first_with_digest`.

    Raises:
        BundleError: it is no such file, or it was changed.
        BundleTooNew: its schema is later than `newest`.
    """
    try:
        content = strict_json(data)
        schema = content.get("schema") if isinstance(content, dict) else None
        if type(schema) is not int or schema < 1:  # true is an int too
            raise ValueError("it has no schema number")
        if schema > newest:
            raise BundleTooNew(f"{where} has schema {schema}, this edgeseg reads up to {newest}: upgrade edgeseg")
        if (_DIGEST in content) != (schema >= first_with_digest):
            raise ValueError(f"schema {schema} and a digest do not fit together")
        if _DIGEST in content and content[_DIGEST] != digest(content):
            raise BundleError(f"{where} was changed, it does not have its own digest: copy the bundle again")
    except (ValueError, rfc8785.CanonicalizationError) as error:
        raise BundleError(f"{where} is not a valid {what}: {' '.join(str(error).split())}") from error
    return dict(content)


def strict_json(data: bytes) -> Any:
    """JSON as a strict writer writes it. Raises ValueError for everything else, however deep it is nested."""
    try:
        return json.loads(
            data.decode(), parse_float=_strict_float, parse_constant=_no_constant, object_pairs_hook=_strict_object
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def convert_manifest(content: dict[str, Any], where: str = MANIFEST) -> Manifest:
    """The manifest of a JSON object. Raises BundleError where a field is missing, of another type or no size."""
    try:
        manifest = msgspec.convert(content, Manifest, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise BundleError(f"{where} is not a valid manifest: {error}") from error
    size = manifest.preprocess
    if size.scan_area is not None:
        try:
            check_shares(size.scan_area)
        except BadInput as error:
            raise BundleError(f"{where} is not a valid manifest: {error}") from error
    if min(size.height, size.width) < 1 or size.height * size.width > _LARGEST_INPUT or size.channels not in (1, 3):
        raise BundleError(
            f"{where} asks for an input of {size.height}x{size.width}x{size.channels}, expected 1 or 3 channels and "
            f"at most {_LARGEST_INPUT} pixels: it is damaged or hostile"
        )
    return manifest


def canonical(content: Any) -> bytes:
    """The canonical form of JSON by RFC 8785: sorted keys, no white space, numbers as ECMAScript writes them.

    Raises ValueError for what has no such form: deep nesting, or integers beyond 2^53.
    """
    try:
        return rfc8785.dumps(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of the canonical form of a manifest without its digest."""
    return hashlib.sha256(canonical({k: v for k, v in content.items() if k != _DIGEST})).hexdigest()


def records(manifest: Manifest) -> Iterator[FileRecord]:
    """Every file of a bundle but the manifest. Raises BundleError for an artifact without files."""
    for artifact in manifest.artifacts:
        if not artifact.files:
            raise BundleError(f"artifact {artifact.name} lists no files: the manifest is damaged")
        yield from artifact.files
    for golden in manifest.golden:
        yield from golden.files


def map_records(manifest: Manifest, change: Callable[[FileRecord], FileRecord]) -> Manifest:
    """The manifest with every file record changed."""

    def artifact(a: Artifact) -> Artifact:
        return replace(a, files=tuple(change(f) for f in a.files))

    def golden(g: Golden) -> Golden:
        return Golden(change(g.frame), change(g.mask), change(g.logits), g.input and change(g.input))

    return replace(
        manifest,
        artifacts=tuple(artifact(a) for a in manifest.artifacts),
        golden=tuple(golden(g) for g in manifest.golden),
    )


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
    own = (PurePosixPath(MANIFEST), PurePosixPath(SIGNATURE))
    folded = Counter(str(p).lower() for p in (*own, *paths, *folders))
    name, count = folded.most_common(1)[0]
    if count > 1:
        raise BundleError(f"the manifest names {name} twice, or in two spellings: it is damaged or hostile")


def encode_artifact(artifact: Artifact) -> bytes:
    """An artifact as JSON, to be told to another process."""
    return msgspec.json.encode(artifact, enc_hook=_encode_path)


def decode_artifact(data: bytes) -> Artifact:
    """The same artifact again."""
    return msgspec.json.decode(data, type=Artifact, dec_hook=_decode_path)


def _strict_float(literal: str) -> float:
    """A number that is written as short as it can be: as Python, ECMAScript or msgspec would."""
    value = float(literal)
    if literal not in (repr(value), msgspec.json.encode(value).decode()) and literal != _ecmascript(value):
        raise ValueError(f"{literal[:40]} is not the shortest form of a finite number")
    return value


def _ecmascript(value: float) -> str | None:
    return rfc8785.dumps(value).decode() if abs(value) != float("inf") else None


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


def _strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError(f"the field {Counter(k for k, _ in pairs).most_common(1)[0][0][:40]!r} is there twice")
    return content


def _encode_path(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    raise NotImplementedError(f"{type(value)} has no place in a manifest")


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a path, got {type(value).__name__}")
