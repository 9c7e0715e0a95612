"""Key files: an Ed25519 private key for whoever signs, and its public half for every device that trusts it.

    NAME.key    PKCS#8 PEM, readable by its owner alone, encrypted where a passphrase is given
    NAME.pub    JSON: schema, algorithm, id (SHA-256 of the public key), name, public, created, expires
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeseg.durable import fsync, os_errors
from edgeseg.errors import BadInput, SignatureError
from edgeseg.manifest import strict_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "Ed25519"
PRIVATE_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_SCHEMA = 1
_LARGEST_FILE = 1 << 16
_SHOWN_ID = 12
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a device needs to know of a key it trusts.

    Attributes:
        id: SHA-256 of the 32 bytes of the key, lowercase hex.
        name: for people.
        public: the 32 bytes, lowercase hex.
        created: UTC, as in 2026-01-31T12:00:00Z.
        expires: the last day (UTC) on which the key may sign, as in 2027-01-31; None for a key without an end.
    """

    id: str
    name: str
    public: str
    created: str
    expires: str | None = None

    def __str__(self) -> str:
        """The key for people, as in `release (0123456789ab)`."""
        return f"{self.name} ({short_id(self.id)})"

    def expired(self, day: str) -> bool:
        """Whether the key may no longer sign on a day, or at a time, written as in 2026-01-31T12:00:00Z."""
        return self.expires is not None and day[: len(self.expires)] > self.expires


def short_id(key_id: str) -> str:
    """Enough of a key's id to tell keys apart."""
    return key_id[:_SHOWN_ID]


def now() -> str:
    """The time, as signatures and key files have it."""
    return datetime.now(UTC).strftime(TIME_FORMAT)


def check_time(text: str) -> None:
    """Raise ValueError unless this is a time in the one form that signatures and key files have."""
    if datetime.strptime(text, TIME_FORMAT).strftime(TIME_FORMAT) != text:
        raise ValueError(f"{text!r} is not a UTC time as in 2026-01-31T12:00:00Z")


def new_key(name: str, folder: Path | str, *, expires: date | None = None, passphrase: str | None = None) -> Path:
    """Make a key pair: NAME.key and NAME.pub in a folder. Nothing is ever overwritten.

    Args:
        name: letters, digits, dots, dashes and underscores; file name and name of the key.
        folder: made where it does not exist.
        expires: the last day (UTC) on which the key may sign.
        passphrase: encrypts the private key.

    Returns:
        The path of the public key; the private key lies beside it.

    Raises:
        BadInput: no such name, a day in the past, an empty passphrase, or one of the files exists.
        BundleError: the files cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name for a key, expected up to 64 letters, digits, dots, dashes, underscores")
    if expires and expires < datetime.now(UTC).date():
        raise BadInput(f"the key would have expired on {expires}: choose a day to come")
    if passphrase == "":
        raise BadInput("the passphrase is empty: choose one, or make the key without --passphrase")
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    key = PublicKey(hashlib.sha256(raw).hexdigest(), name, raw.hex(), now(), expires.isoformat() if expires else None)
    target = Path(folder)
    secret, public = target / f"{name}{PRIVATE_SUFFIX}", target / f"{name}{PUBLIC_SUFFIX}"
    with os_errors(f"the key {name} cannot be written to {target}"):
        target.mkdir(parents=True, exist_ok=True)
        for path in (secret, public):
            if path.exists():
                raise BadInput(f"{path} exists, a key is never overwritten: choose another name or -o")
        with contextlib.ExitStack() as undo:
            for path, data, mode in (
                (secret, _pem(private, passphrase), 0o600),
                (public, encode_public_key(key), 0o644),
            ):
                _write_new(path, data, mode, undo)
            fsync(target)
            undo.pop_all()
    return public


def encode_public_key(key: PublicKey) -> bytes:
    """The content of its file."""
    content = {"schema": _SCHEMA, "algorithm": ALGORITHM, **asdict(key)}
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def read_public_key(path: Path | str) -> PublicKey:
    """A public key from its file. Raises SignatureError where it is no such file, or not whole."""
    data = _read(Path(path))
    try:
        key = msgspec.convert(_fields(strict_json(data)), PublicKey)
        check_time(key.created)
        if key.expires is not None and date.fromisoformat(key.expires).isoformat() != key.expires:
            raise ValueError(f"{key.expires!r} is not a day as in 2027-01-31")
        if not _NAME.fullmatch(key.name):
            raise ValueError("its name is not one of letters, digits, dots, dashes and underscores")
        raw = bytes.fromhex(key.public)
        if (raw.hex(), hashlib.sha256(raw).hexdigest()) != (key.public, key.id):
            raise ValueError("its id is not the SHA-256 of its key")
        _load_public(raw)
    except (ValueError, msgspec.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SignatureError(f"{path} is not a public key, expected a .pub of `edgeseg keys new`: {reason}") from error
    return key


def is_encrypted(path: Path | str) -> bool:
    """Whether a private key needs a passphrase. Raises SignatureError where it cannot be read."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in _read(Path(path))


def read_private_key(path: Path | str, passphrase: str | None = None) -> Ed25519PrivateKey:
    """A private key from its file.

    Raises SignatureError where it cannot be read, needs another passphrase or is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    encrypted = is_encrypted(path)
    if encrypted and passphrase is None:
        raise SignatureError(f"{path} is encrypted: give its passphrase")
    try:
        key = load_pem_private_key(_read(Path(path)), (passphrase or "").encode() if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wanted = "its passphrase is another one, or it is damaged" if encrypted else "expected a .key of `keys new`"
        raise SignatureError(f"{path} is not a private key that can be used: {wanted}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} is not an {ALGORITHM} key, expected a .key of `edgeseg keys new`")
    return key


def is_signature(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the private half of this key signed this message."""
    from cryptography.exceptions import InvalidSignature

    try:
        _load_public(bytes.fromhex(key.public)).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _load_public(raw: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw)


def _fields(content: Any) -> dict[str, Any]:
    expected = {"schema", "algorithm", *PublicKey.__dataclass_fields__}
    if not isinstance(content, dict) or set(content) != expected:
        raise ValueError(f"expected exactly the fields {', '.join(sorted(expected))}")
    if (content["schema"], content["algorithm"]) != (_SCHEMA, ALGORITHM):
        raise ValueError(f"expected schema {_SCHEMA} and {ALGORITHM}")
    return {name: content[name] for name in PublicKey.__dataclass_fields__}


def _pem(private: Ed25519PrivateKey, passphrase: str | None) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    lock = form.NoEncryption() if passphrase is None else form.BestAvailableEncryption(passphrase.encode())
    return private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SignatureError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST_FILE:
        raise SignatureError(f"{path} is larger than {_LARGEST_FILE >> 10} KiB: not a key")
    return data


def _write_new(path: Path, data: bytes, mode: int, undo: contextlib.ExitStack) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    undo.callback(path.unlink)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
