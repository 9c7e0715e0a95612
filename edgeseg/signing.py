"""Sign a bundle: one signature for each key, so that keys can be rotated. What is signed says `edgeseg.trust`."""

from __future__ import annotations

from pathlib import Path

from edgeseg.bundle import check_files, check_papers, read_papers
from edgeseg.durable import new_file, os_errors
from edgeseg.errors import BundleError, SignatureError
from edgeseg.keys import PUBLIC_SUFFIX, PublicKey, now, read_private_key, read_public_key
from edgeseg.manifest import MANIFEST, SIGNATURE, parse_manifest
from edgeseg.trust import Signature, encode_signatures, message, parse_signatures
from edgeseg.types import Signer


def sign_bundle(
    bundle: Path | str, key: Path | str, *, public: Path | str | None = None, passphrase: str | None = None
) -> Signer:
    """Add a signature to a bundle folder, or replace the one of the same key, at once or not at all.

    Every file of the bundle is checked first: signed is what is there. Signatures of other keys stay.

    Args:
        bundle: the folder; its own folder must be writable too.
        key: NAME.key, as `edgeseg.keys.new_key` writes it.
        public: its public half, which knows when the key expires; NAME.pub beside the key by default.
        passphrase: of the private key, where it has one.

    Raises:
        SignatureError: the key cannot be read, has expired, or `public` is of another key; or the signatures that the
            bundle has are damaged.
        BundleError: not a bundle folder, or not a sound one; or it cannot be written.
    """
    root = Path(bundle)
    if root.is_file():
        raise BundleError(f"{root} is a file, expected a bundle folder: sign it before it is packed")
    papers = read_papers(root)
    root = root.resolve()
    manifest, _ = check_papers(papers, None, str(root), f"{root}/")
    check_files(root, manifest)
    private = read_private_key(key, passphrase)
    vouched = _public_half(Path(key), public, private.public_key().public_bytes_raw().hex())
    content, signed_at = parse_manifest(papers.manifest, str(root / MANIFEST)), now()
    try:
        signed = private.sign(message(content, vouched.id, signed_at))
    except ValueError as error:
        raise BundleError(f"{root / MANIFEST} cannot be signed: {error}") from error
    others = () if papers.signature is None else parse_signatures(papers.signature, str(root / SIGNATURE))
    kept = [s for s in others if s.key_id != vouched.id]
    with os_errors(f"{root} cannot be signed"), new_file(root / SIGNATURE, beside=root) as stream:
        stream.write(encode_signatures([*kept, Signature(vouched.id, signed_at, signed.hex())]))
    return Signer(vouched.id, vouched.name, signed_at)


def _public_half(key: Path, public: Path | str | None, expected: str) -> PublicKey:
    path = Path(public) if public is not None else key.with_suffix(PUBLIC_SUFFIX)
    if public is None and not path.is_file():
        raise SignatureError(f"{path} is missing, it knows when {key.name} expires: put it there, or name it (--pub)")
    found = read_public_key(path)
    if found.public != expected:
        raise SignatureError(f"{path} is not the public half of {key}: name the one that is (--pub)")
    if found.expired(now()):
        raise SignatureError(f"{key} expired on {found.expires}: sign with a current key (`edgeseg keys new`)")
    return found
