"""Signing: only what is sound, only with a key that may, and at once or not at all."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg import BundleError, SignatureError, open_bundle, signing
from edgeseg.keys import encode_public_key, new_key, read_public_key
from edgeseg.manifest import MANIFEST, SIGNATURE
from edgeseg.signing import sign_bundle
from edgeseg.transport import pack
from edgeseg.trust import parse_signatures

MakeKey = Callable[..., Path]


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_signing_adds_one_file_and_changes_none(folder: Path, key: Path) -> None:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    beside = entries(folder.parent)
    signer = sign_bundle(folder, key.with_suffix(".key"))
    assert open_bundle(folder, trusted_keys=key).signer == signer
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert set(after) - set(before) == {folder.resolve() / SIGNATURE}
    assert all(after[p] == data for p, data in before.items())
    assert entries(folder.parent) == beside


def test_signing_again_replaces_the_own_signature_and_keeps_the_others(
    signed: Path, key: Path, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_key("other", "others")
    sign_bundle(signed, other.with_suffix(".key"))
    monkeypatch.setattr(signing, "now", lambda: "2030-01-01T00:00:00Z")
    sign_bundle(signed, key.with_suffix(".key"))
    found = {s.key_id: s.signed_at for s in parse_signatures((signed / SIGNATURE).read_bytes())}
    assert set(found) == {read_public_key(key).id, read_public_key(other).id}
    assert found[read_public_key(key).id] == "2030-01-01T00:00:00Z"
    assert open_bundle(signed, trusted_keys=[key]).signer
    assert open_bundle(signed, trusted_keys=[other]).signer


def test_an_expired_key_does_not_sign(folder: Path, make_key: MakeKey) -> None:
    key = make_key(expires="2026-01-31")
    with pytest.raises(SignatureError, match=r"release\.key expired on 2026-01-31: sign with a current key"):
        sign_bundle(folder, key.with_suffix(".key"))
    assert not (folder / SIGNATURE).exists()


def test_the_public_half_must_be_there_and_be_of_this_key(folder: Path, key: Path, make_key: MakeKey) -> None:
    secret, other = key.with_suffix(".key"), make_key("other")
    with pytest.raises(SignatureError, match=r"other\.pub is not the public half of .*release\.key"):
        sign_bundle(folder, secret, public=other)
    moved = key.rename(key.parent.parent / "moved.pub")
    with pytest.raises(SignatureError, match=r"release\.pub is missing, it knows when release\.key expires"):
        sign_bundle(folder, secret)
    assert sign_bundle(folder, secret, public=moved)
    moved.write_bytes(encode_public_key(replace(read_public_key(other), name="release")))
    with pytest.raises(SignatureError, match="is not the public half of"):
        sign_bundle(folder, secret, public=moved)


def test_an_encrypted_key_needs_its_passphrase(folder: Path, tmp_path: Path) -> None:
    key = new_key("locked", tmp_path, passphrase="correct horse")
    with pytest.raises(SignatureError, match="is encrypted"):
        sign_bundle(folder, key.with_suffix(".key"))
    assert sign_bundle(folder, key.with_suffix(".key"), passphrase="correct horse")


def test_only_a_sound_bundle_is_signed(folder: Path, key: Path, tmp_path: Path) -> None:
    secret = key.with_suffix(".key")
    pack(open_bundle(folder), tmp_path / "packed")
    with pytest.raises(BundleError, match="is a file, expected a bundle folder: sign it before it is packed"):
        sign_bundle(tmp_path / "packed", secret)
    with pytest.raises(BundleError, match="is not a bundle, expected a folder"):
        sign_bundle(tmp_path / "nothing", secret)
    (folder / "artifacts" / "dense.onnx").write_bytes(b"x" * 9000)
    with pytest.raises(BundleError, match="does not have the SHA-256"):
        sign_bundle(folder, secret)
    (folder / "artifacts" / "dense.onnx").unlink()
    with pytest.raises(BundleError, match="is missing"):
        sign_bundle(folder, secret)
    assert not (folder / SIGNATURE).exists()


def test_damaged_signatures_are_not_thrown_away_unasked(signed: Path, key: Path) -> None:
    (signed / SIGNATURE).write_bytes(b"{}")
    with pytest.raises(SignatureError, match="is not a valid list of signatures"):
        sign_bundle(signed, key.with_suffix(".key"))
    assert (signed / SIGNATURE).read_bytes() == b"{}"


def test_signing_works_where_unsigned_bundles_are_an_error(
    folder: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_TRUSTED_KEYS", str(key))
    assert sign_bundle(folder, key.with_suffix(".key"))
    assert open_bundle(folder).signer


KILLED = """
import os, sys
from edgeseg import durable
from edgeseg.signing import sign_bundle
durable.fsync = lambda path: os.kill(os.getpid(), 9)
sign_bundle(sys.argv[1], sys.argv[2])
"""


def test_a_kill_while_signing_leaves_the_bundle_as_it_was(signed: Path, key: Path) -> None:
    before = (signed / SIGNATURE).read_bytes()
    arguments = [sys.executable, "-c", KILLED, str(signed), str(key.with_suffix(".key"))]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert list(signed.parent.glob(f".{signed.name}.*.part/{SIGNATURE}"))
    assert open_bundle(signed, trusted_keys=key)
    assert (signed / SIGNATURE).read_bytes() == before
    sign_bundle(signed, key.with_suffix(".key"))
    assert not list(signed.parent.glob(".*.part"))


def test_a_copy_of_a_signed_bundle_is_signed(signed: Path, key: Path, tmp_path: Path) -> None:
    assert open_bundle(shutil.copytree(signed, tmp_path / "copy"), trusted_keys=key).signer
    assert MANIFEST in entries(tmp_path / "copy")
