"""Who signed, and whether that counts: every way in which a signature does not is an error of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg import BundleError, BundleTooNew, SignatureError, open_bundle, signing
from edgeseg.bundle import Papers, check_papers, read_papers
from edgeseg.keys import encode_public_key, read_public_key
from edgeseg.manifest import MANIFEST, SIGNATURE, seal
from edgeseg.signing import sign_bundle
from edgeseg.trust import TRUSTED_KEYS, encode_signatures, parse_signatures, trusted_keys

MakeFolder = Callable[..., Path]
MakeKey = Callable[..., Path]
Edit = Callable[..., None]


def refused(path: Path, keys: Any, message: str) -> None:
    with pytest.raises(SignatureError, match=message) as caught:
        open_bundle(path, trusted_keys=keys)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trusted_signature_opens_the_bundle_and_says_whose_it_is(signed: Path, key: Path) -> None:
    known = read_public_key(key)
    for keys in (key, str(key), known, [key], (str(key.parent),), [known]):
        opened = open_bundle(signed, trusted_keys=keys)
        assert opened.signer is not None
        assert (opened.signer.key_id, opened.signer.name) == (known.id, "release")
    assert open_bundle(signed).signer is None


def test_an_unsigned_bundle_is_refused(folder: Path, key: Path) -> None:
    refused(folder, key, r"is not signed, expected a signature by release \([0-9a-f]{12}\): have it signed")


def test_an_unknown_key_is_refused_by_its_id(signed: Path, key: Path, make_key: MakeKey) -> None:
    other = make_key("other", "others")
    ids = [read_public_key(k).id[:12] for k in (key, other)]
    refused(signed, other, rf"is signed by the unknown key {ids[0]}, expected other \({ids[1]}\)")


def test_a_key_of_the_same_name_is_not_the_same_key(signed: Path, make_key: MakeKey) -> None:
    refused(signed, make_key("release", "impostor"), "is signed by the unknown key")


def test_a_changed_manifest_is_refused_even_with_a_digest_that_fits(
    signed: Path, key: Path, rename: Callable[[Path], None]
) -> None:
    rename(signed)
    assert open_bundle(signed).manifest.name == "evil"
    refused(signed, key, r"is not what release \(.*\) signed: its manifest or its signature was changed, or .* another")


def test_the_signature_of_another_bundle_is_refused(signed: Path, key: Path, make_folder: MakeFolder) -> None:
    other = make_folder("other.edgeseg", seed=1)
    shutil.copy(signed / SIGNATURE, other)
    refused(other, key, "is not what release .* signed: .* the signature is of another bundle")


def test_the_time_of_a_signature_is_signed_too(signed: Path, key: Path, edit: Edit) -> None:
    edit(signed / SIGNATURE, lambda c: c["signatures"][0].update(signed_at="2020-01-01T00:00:00Z"))
    refused(signed, key, "is not what release .* signed")


def test_one_key_cannot_pass_for_another(signed: Path, key: Path, make_key: MakeKey, edit: Edit) -> None:
    other = make_key("other")
    edit(signed / SIGNATURE, lambda c: c["signatures"][0].update(key_id=read_public_key(other).id))
    refused(signed, [key, other], "is not what other .* signed")


def test_a_manifest_written_in_another_order_and_white_space_is_equally_signed(signed: Path, key: Path) -> None:
    content = json.loads((signed / MANIFEST).read_text())
    before = (signed / MANIFEST).read_bytes()
    (signed / MANIFEST).write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert (signed / MANIFEST).read_bytes() != before
    assert open_bundle(signed, trusted_keys=key).signer


def test_a_signature_made_after_the_key_expired_does_not_count(
    folder: Path, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(expires="2026-03-31")
    monkeypatch.setattr(signing, "now", lambda: "2026-03-31T23:59:59Z")
    sign_bundle(folder, key.with_suffix(".key"))
    # Signed in time it stays good: a device in the field must not stop on the day when a key expires.
    assert open_bundle(folder, trusted_keys=key).signer
    key.write_bytes(encode_public_key(replace(read_public_key(key), expires="2026-03-30")))
    refused(folder, key, r"was signed by release \(.*\) at 2026-03-31T23:59:59Z, after that key expired on 2026-03-30")


def test_rotation_keeps_old_devices_and_new_ones(signed: Path, key: Path, make_key: MakeKey) -> None:
    new = make_key("next", "next")
    sign_bundle(signed, new.with_suffix(".key"))
    for keys, name in ((key, "release"), (new, "next"), ([new, key], "release")):
        opened = open_bundle(signed, trusted_keys=keys)
        assert opened.signer is not None
        assert opened.signer.name == name
    late = replace(read_public_key(key), expires="2020-01-01")
    signer = open_bundle(signed, trusted_keys=[late, new]).signer
    assert signer is not None
    assert signer.name == "next"


def test_a_wrong_signature_by_a_trusted_key_spoils_the_others(
    signed: Path, key: Path, make_key: MakeKey, edit: Edit
) -> None:
    new = make_key("next", "next")
    sign_bundle(signed, new.with_suffix(".key"))
    edit(signed / SIGNATURE, lambda c: c["signatures"][0].update(signature="00" * 64))
    refused(signed, [key, new], "is not what release .* signed")
    assert open_bundle(signed, trusted_keys=new).signer


def test_the_environment_makes_unsigned_bundles_an_error_everywhere(
    signed: Path, key: Path, make_folder: MakeFolder, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_key("other", "others")
    unsigned = make_folder("unsigned.edgeseg", seed=2)
    monkeypatch.setenv(TRUSTED_KEYS, os.pathsep.join([str(other), str(key.parent)]))
    assert open_bundle(signed).signer
    refused(unsigned, None, r"is not signed, expected a signature by other \(.*\), release")
    # What is given stands in place of the setting, and does not switch the check off.
    refused(signed, other, "unknown key")


@pytest.mark.parametrize("value", ["", os.pathsep, "EMPTY", "nothing/here"])
def test_a_setting_without_a_key_does_not_mean_trust_all(
    signed: Path, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(TRUSTED_KEYS, str(tmp_path / "empty") if value == "EMPTY" else value)
    with pytest.raises(SignatureError, match=r"no key in EDGESEG_TRUSTED_KEYS|holds no key|cannot be read"):
        open_bundle(signed)


def test_no_keys_given_does_not_mean_trust_all(signed: Path) -> None:
    with pytest.raises(SignatureError, match=r"there is no key in the trusted keys, expected \.pub files"):
        open_bundle(signed, trusted_keys=[])


def test_a_damaged_key_among_the_trusted_ones_is_an_error(signed: Path, key: Path) -> None:
    (key.parent / "z.pub").write_text("{}")
    with pytest.raises(SignatureError, match=r"z\.pub is not a public key"):
        open_bundle(signed, trusted_keys=key.parent)


def test_two_files_of_one_key_must_agree(key: Path) -> None:
    shutil.copy(key, key.with_name("copy.pub"))
    assert len(trusted_keys(key.parent) or {}) == 1
    key.write_bytes(encode_public_key(replace(read_public_key(key), expires="2030-01-01")))
    with pytest.raises(SignatureError, match="two files differ about the key release"):
        trusted_keys(key.parent)


def test_the_signature_is_checked_before_any_listed_file_is_read(
    signed: Path, key: Path, rename: Callable[[Path], None]
) -> None:
    rename(signed)
    shutil.rmtree(signed / "artifacts")
    (signed / "extra").touch()
    refused(signed, key, "is not what release .* signed")


def test_a_signature_does_not_stand_in_for_the_other_checks(signed: Path, key: Path) -> None:
    file = signed / "artifacts" / "dense.onnx"
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"dense\.onnx does not have the SHA-256"):
        open_bundle(signed, trusted_keys=key)
    file.unlink()
    with pytest.raises(BundleError, match=r"dense\.onnx is missing"):
        open_bundle(signed, trusted_keys=key)
    file.write_bytes(sound)
    for extra in ("extra", "artifacts/DENSE.onnx", "Signature.json"):
        (signed / extra).touch()
        with pytest.raises(BundleError, match=f"{extra} is not in the manifest"):
            open_bundle(signed, trusted_keys=key)
        (signed / extra).unlink()
    assert open_bundle(signed, trusted_keys=key)


def test_names_that_differ_in_case_are_refused_even_signed(
    folder: Path, key: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collide(content: dict[str, Any]) -> None:
        content["artifacts"][1]["files"][0] |= {"path": "artifacts/DENSE.onnx"}

    edit(folder / MANIFEST, collide)
    (folder / "artifacts" / "sparse.tflite").rename(folder / "artifacts" / "DENSE.onnx")
    for path in (key, None):
        with pytest.raises(BundleError, match=r"names artifacts/dense\.onnx twice, or in two spellings"):
            open_bundle(folder) if path is None else sign_bundle(folder, path.with_suffix(".key"))


SIGNATURE_CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no signatures": lambda c: c.update(signatures=[]),
    "not a list": lambda c: c.update(signatures={}),
    "not an object": lambda c: c.update(signatures=["x"]),
    "a field more": lambda c: c.update(comment=""),
    "a field more inside": lambda c: c["signatures"][0].update(comment=""),
    "a field less inside": lambda c: c["signatures"][0].pop("signed_at"),
    "one key twice": lambda c: c["signatures"].append(c["signatures"][0]),
    "capitals": lambda c: c["signatures"][0].update(signature=c["signatures"][0]["signature"].upper()),
    "a capital id": lambda c: c["signatures"][0].update(key_id="A" * 64),
    "a short signature": lambda c: c["signatures"][0].update(signature="00"),
    "a number": lambda c: c["signatures"][0].update(signature=7),
    "no time": lambda c: c["signatures"][0].update(signed_at="now"),
    "a time of another zone": lambda c: c["signatures"][0].update(signed_at="2026-01-31T12:00:00+01:00"),
    "a time without zeros": lambda c: c["signatures"][0].update(signed_at="2026-1-31T12:00:00Z"),
}


@pytest.mark.parametrize("name", SIGNATURE_CHANGES)
def test_a_list_of_signatures_is_read_strictly_whether_keys_are_given_or_not(
    signed: Path, key: Path, name: str, edit: Edit
) -> None:
    edit(signed / SIGNATURE, SIGNATURE_CHANGES[name])
    for keys in (None, key):
        refused(signed, keys, r"signature\.json is not a valid list of signatures")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 60_000, b'{"schema": 0}', b'{"schema": 1}'])
def test_what_is_no_list_of_signatures_is_one_error(signed: Path, content: bytes) -> None:
    (signed / SIGNATURE).write_bytes(content)
    refused(signed, None, r"signature\.json is not a valid list of signatures")


def test_a_later_schema_of_signatures_asks_for_an_upgrade(signed: Path, edit: Edit) -> None:
    edit(signed / SIGNATURE, lambda c: c.update(schema=2))
    with pytest.raises(BundleTooNew, match=r"signature\.json has schema 2, this edgeseg reads up to 1: upgrade"):
        open_bundle(signed)


def test_an_endless_or_linked_signature_is_not_read(signed: Path, tmp_path: Path) -> None:
    file = signed / SIGNATURE
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    with pytest.raises(BundleError, match=r"signature\.json is missing or not a plain file inside the bundle"):
        open_bundle(signed)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(signed)
    file.unlink()
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"signature\.json is larger than 64 KiB: not a signature"):
        open_bundle(signed)


def flips(data: bytes) -> Any:
    return (data[: n // 8] + bytes([data[n // 8] ^ 1 << n % 8]) + data[n // 8 + 1 :] for n in range(8 * len(data)))


@pytest.mark.parametrize("keys", ["none", "one of two", "all"])
def test_every_single_flipped_bit_of_signature_and_manifest_is_found(
    signed: Path, key: Path, make_key: MakeKey, keys: str
) -> None:
    other = make_key("other", "others")
    sign_bundle(signed, other.with_suffix(".key"))
    trusted = {"none": None, "one of two": trusted_keys(key), "all": trusted_keys([key, other])}[keys]
    papers = read_papers(signed)
    assert papers.signature is not None
    check_papers(papers, trusted, "bundle")
    signatures = [Papers(papers.manifest, data) for data in flips(papers.signature)]
    manifests = [Papers(data, papers.signature) for data in flips(papers.manifest)]
    found = 0
    for changed in (*signatures, *manifests):
        with pytest.raises(BundleError):
            check_papers(changed, trusted, "bundle")
        found += 1
    assert found == 8 * (len(papers.signature) + len(papers.manifest))


def test_a_list_of_signatures_survives_a_round_trip(signed: Path) -> None:
    data = (signed / SIGNATURE).read_bytes()
    signatures = parse_signatures(data)
    assert encode_signatures(signatures) == data
    assert re.fullmatch("[0-9a-f]{128}", signatures[0].signature)
    assert seal({"schema": 1, "signatures": [asdict(s) for s in signatures]}) == data
