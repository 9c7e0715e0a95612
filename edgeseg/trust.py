"""Signatures of a bundle, and whether one of them is by a key that is trusted.

signature.json lies beside the manifest and holds one signature for each key, so that keys can be rotated. Signed is the
canonical form (RFC 8785) of

    {"schema": 1, "key_id": ..., "signed_at": ..., "manifest": the JSON object of manifest.json}

so that a manifest of equal content is equally signed, and the time of a signature is as good as the signature. The
file has a digest of its own, as the manifest has: it tells damage where the key of a signature is not at hand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.errors import BundleError, BundleTooNew, SignatureError
from edgeseg.keys import PUBLIC_SUFFIX, PublicKey, check_time, is_signature, read_public_key, short_id
from edgeseg.manifest import SIGNATURE, canonical, parse_sealed, seal
from edgeseg.types import Signer

TRUSTED_KEYS = "EDGESEG_TRUSTED_KEYS"
LARGEST_SIGNATURE = 1 << 16
_SCHEMA = 1
_MOST_SHOWN = 4
_ID, _SIGNATURE = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")

Keys = Iterable[PublicKey | Path | str] | PublicKey | Path | str
Trusted = Mapping[str, PublicKey]


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of a manifest.

    Attributes:
        key_id: SHA-256 of the public key, lowercase hex.
        signed_at: UTC, as in 2026-01-31T12:00:00Z.
        signature: 64 bytes, lowercase hex.
    """

    key_id: str
    signed_at: str
    signature: str


def trusted_keys(keys: Keys | None = None) -> Trusted | None:
    """The keys to trust, by id: those given, else those of the environment variable EDGESEG_TRUSTED_KEYS.

    Args:
        keys: keys, .pub files and folders of such files. The variable holds files and folders, separated as in PATH.

    Returns:
        None where neither says anything: no signature is asked for.

    Raises:
        SignatureError: there is no key among them, a file is not a public key, or two differ about one key.
    """
    where = "the trusted keys"
    if keys is None:
        setting = os.environ.get(TRUSTED_KEYS)
        if setting is None:
            return None
        keys, where = [part for part in setting.split(os.pathsep) if part], TRUSTED_KEYS
    found: dict[str, PublicKey] = {}
    for key in _each(keys):
        if found.setdefault(key.id, key) != key:
            raise SignatureError(f"{where}: two files differ about the key {key}: remove the older one")
    if not found:
        raise SignatureError(f"there is no key in {where}, expected {PUBLIC_SUFFIX} files or folders of them")
    return found


def encode_signatures(signatures: Iterable[Signature]) -> bytes:
    """The content of signature.json."""
    return seal({"schema": _SCHEMA, "signatures": [asdict(s) for s in signatures]})


def parse_signatures(data: bytes, where: str = SIGNATURE) -> tuple[Signature, ...]:
    """The signatures in a signature.json, none of them checked.

    Raises:
        SignatureError: it is no such file, or it was changed.
        BundleTooNew: it has a later schema than this edgeseg knows.
    """
    try:
        content = parse_sealed(data, where, "list of signatures", _SCHEMA)
    except BundleTooNew:
        raise
    except BundleError as error:
        raise SignatureError(str(error)) from error
    try:
        if set(content) != {"schema", "signatures", "digest"} or not isinstance(content["signatures"], list):
            raise ValueError("expected exactly the fields digest, schema, signatures")
        signatures = tuple(_signature(entry) for entry in content["signatures"])
        if not signatures or len({s.key_id for s in signatures}) != len(signatures):
            raise ValueError("expected one signature for each key, and at least one")
    except (ValueError, TypeError, msgspec.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SignatureError(f"{where} is not a valid list of signatures: {reason}") from error
    return signatures


def message(manifest: dict[str, Any], key_id: str, signed_at: str) -> bytes:
    """What is signed. Raises ValueError for a manifest that has no canonical form."""
    return canonical({"schema": _SCHEMA, "key_id": key_id, "signed_at": signed_at, "manifest": manifest})


def check_signatures(
    manifest: dict[str, Any], signatures: tuple[Signature, ...], trusted: Trusted, bundle: str
) -> Signer:
    """Find the signature by a trusted key.

    A signature by a trusted key that does not fit the manifest is refused whatever other signatures there are; one that
    was made after its key expired does not count.

    Args:
        manifest: the JSON object that was read.
        signatures: of the same bundle.
        trusted: keys by id.
        bundle: its name for messages.

    Returns:
        Who signed, by the first signature that counts.

    Raises:
        SignatureError: there is none.
    """
    if not signatures:
        raise SignatureError(
            f"{bundle} is not signed, expected a signature by {_names(trusted)}: have it signed (`edgeseg sign`)"
        )
    known = [(trusted[s.key_id], s) for s in signatures if s.key_id in trusted]
    if not known:
        ids = ", ".join(short_id(s.key_id) for s in signatures[:_MOST_SHOWN])
        raise SignatureError(
            f"{bundle} is signed by the unknown key {ids}, expected {_names(trusted)}: "
            f"have it signed with a trusted key, or trust that one if you know whose it is"
        )
    for key, signature in known:
        _check(manifest, key, signature, bundle)
    for key, signature in known:
        if not key.expired(signature.signed_at):
            return Signer(key.id, key.name, signature.signed_at)
    key, signature = known[0]
    raise SignatureError(
        f"{bundle} was signed by {key} at {signature.signed_at}, after that key expired on {key.expires}: "
        f"have it signed with a current key"
    )


def check_current(signer: Signer | None, trusted: Trusted, today: str, bundle: str) -> None:
    """Raise SignatureError where the signer's key has expired by now, however early it signed."""
    if signer and trusted[signer.key_id].expired(today):
        key = trusted[signer.key_id]
        raise SignatureError(
            f"{bundle} is signed by {key}, which expired on {key.expires}: have it signed with a current key"
        )


def _check(manifest: dict[str, Any], key: PublicKey, signature: Signature, bundle: str) -> None:
    try:
        fits = is_signature(key, bytes.fromhex(signature.signature), message(manifest, key.id, signature.signed_at))
    except ValueError as error:
        raise SignatureError(f"{bundle} has a manifest that cannot have been signed: {error}") from error
    if not fits:
        raise SignatureError(
            f"{bundle} is not what {key} signed: its manifest or its signature was changed, or the signature is of "
            f"another bundle: copy it again from where it was signed"
        )


def _each(keys: Keys) -> Iterable[PublicKey]:
    for entry in (keys,) if isinstance(keys, PublicKey | Path | str) else keys:
        if isinstance(entry, PublicKey):
            yield entry
            continue
        path = Path(entry)
        if not path.is_dir():
            yield read_public_key(path)
            continue
        files = sorted(path.glob(f"*{PUBLIC_SUFFIX}"))
        if not files:
            raise SignatureError(f"{path} holds no key, expected {PUBLIC_SUFFIX} files in it")
        yield from map(read_public_key, files)


def _signature(entry: Any) -> Signature:
    if not isinstance(entry, dict) or set(entry) != set(Signature.__dataclass_fields__):
        raise ValueError(f"expected exactly the fields {', '.join(Signature.__dataclass_fields__)}")
    signature = msgspec.convert(entry, Signature)
    if not _ID.fullmatch(signature.key_id) or not _SIGNATURE.fullmatch(signature.signature):
        raise ValueError("expected a key id of 64 and a signature of 128 lowercase hexadecimal digits")
    check_time(signature.signed_at)
    return signature


def _names(trusted: Trusted) -> str:
    shown = [str(key) for key in trusted.values()]
    return ", ".join(shown[:_MOST_SHOWN]) + (f" or {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else "")
