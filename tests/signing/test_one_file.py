"""The one-file form with signatures: they travel along, and forged ones end the reading before anything is written."""

from __future__ import annotations

import lzma
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg import BundleError, SignatureError, open_bundle, transport
from edgeseg.manifest import MANIFEST, SIGNATURE
from edgeseg.signing import sign_bundle
from edgeseg.transport import pack, unpack

END = bytes(1024)
Pieces = dict[str, bytes]


def entry(name: str, data: bytes, size: int | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo(name)
    header.type = kind
    header.size = len(data) if size is None else size
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


@pytest.fixture
def packed(signed: Path, tmp_path: Path) -> Path:
    pack(open_bundle(signed), tmp_path / "head.tar.xz")
    return tmp_path / "head.tar.xz"


@pytest.fixture
def pieces(signed: Path) -> Pieces:
    """The entries of the sound archive, in their order."""
    names = sorted(p.relative_to(signed).as_posix() for p in signed.rglob("*") if p.is_file())
    order = (MANIFEST, SIGNATURE, *(n for n in names if n not in (MANIFEST, SIGNATURE)))
    return {name: entry(name, (signed / name).read_bytes()) for name in order}


def written(file: Path, *entries: bytes) -> Path:
    file.write_bytes(lzma.compress(b"".join(entries) + END, preset=0))
    return file


def test_a_signature_goes_there_and_back(signed: Path, packed: Path, key: Path, tmp_path: Path) -> None:
    opened = unpack(packed, tmp_path / "back", trusted_keys=key)
    assert opened.signer == open_bundle(signed, trusted_keys=key).signer
    assert opened.signer is not None
    files = [p.relative_to(signed) for p in signed.rglob("*") if p.is_file()]
    assert all((tmp_path / "back" / f).read_bytes() == (signed / f).read_bytes() for f in files)
    with tarfile.open(packed) as archive:
        assert archive.getnames()[:2] == [MANIFEST, SIGNATURE]
    assert open_bundle(packed, trusted_keys=key).signer == opened.signer


def test_the_forge_itself_is_sound(pieces: Pieces, key: Path, tmp_path: Path) -> None:
    assert open_bundle(written(tmp_path / "f", *pieces.values()), trusted_keys=key).signer


def test_keys_are_asked_for_again_where_the_file_is_open_already(packed: Path, key: Path, tmp_path: Path) -> None:
    assert open_bundle(packed).signer is None
    assert open_bundle(packed, trusted_keys=key).signer
    other = Path(shutil.copytree(key.parent, tmp_path / "other")) / "release.pub"
    other.unlink()
    with pytest.raises(SignatureError, match="holds no key"):
        open_bundle(packed, trusted_keys=other.parent)


HOSTILE: dict[str, tuple[Callable[[Pieces], list[bytes]], type[BundleError], str]] = {
    "no signature": (lambda p: [v for k, v in p.items() if k != SIGNATURE], SignatureError, "it is not signed"),
    "signature twice": (
        lambda p: [p[MANIFEST], p[SIGNATURE], p[SIGNATURE], *list(p.values())[2:]],
        BundleError,
        "header of artifacts/dense.onnx",
    ),
    "signature before the manifest": (
        lambda p: [p[SIGNATURE], p[MANIFEST], *list(p.values())[2:]],
        BundleError,
        "does not begin with a manifest",
    ),
    "signature last": (
        lambda p: [p[MANIFEST], *list(p.values())[2:], p[SIGNATURE]],
        SignatureError,
        "it is not signed",
    ),
    "signature of 8 GiB": (
        lambda p: [p[MANIFEST], entry(SIGNATURE, b"", (8 << 30) - 1)],
        BundleError,
        r"its signature.json is larger than 64 KiB: not a signature",
    ),
    "signature cut short": (
        lambda p: [p[MANIFEST], entry(SIGNATURE, b"{}", 60_000)],
        BundleError,
        "ends before",
    ),
    "data in the padding": (
        lambda p: [p[MANIFEST], p[SIGNATURE][:-1] + b"!", *list(p.values())[2:]],
        BundleError,
        "the padding of signature.json",
    ),
    "not JSON": (
        lambda p: [p[MANIFEST], entry(SIGNATURE, b"{"), *list(p.values())[2:]],
        SignatureError,
        "signature.json is not a valid list of signatures",
    ),
    "in capitals": (
        lambda p: [p[MANIFEST], p[SIGNATURE].replace(b"signature.json", b"SIGNATURE.json", 1)],
        SignatureError,
        "it is not signed",
    ),
    "a link": (
        lambda p: [p[MANIFEST], entry(SIGNATURE, b"", kind=tarfile.SYMTYPE)],
        SignatureError,
        "it is not signed",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_signature_is_one_error_before_anything_is_written(
    pieces: Pieces, key: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, kind, reason = HOSTILE[name]
    file = written(tmp_path / "hostile.tar.xz", *make(pieces))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(transport, "_check_room", unreachable) if kind is SignatureError else None
    for attempt in (
        lambda: unpack(file, tmp_path / "out", trusted_keys=key),
        lambda: open_bundle(file, trusted_keys=key),
    ):
        with pytest.raises(kind, match=reason) as caught:
            attempt()
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before


def unreachable(*arguments: object) -> None:
    """In place of the last step before files are written."""
    raise AssertionError("a file would have been written")


@pytest.mark.parametrize("name", ["signature twice", "signature last", "not JSON"])
def test_without_keys_misplaced_signatures_are_refused_all_the_same(pieces: Pieces, name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_bundle(written(tmp_path / "f", *HOSTILE[name][0](pieces)))


def test_equal_signed_bundles_give_equal_files(signed: Path, packed: Path, tmp_path: Path) -> None:
    pack(open_bundle(shutil.copytree(signed, tmp_path / "copy")), tmp_path / "copy.tar.xz")
    assert (tmp_path / "copy.tar.xz").read_bytes() == packed.read_bytes()


def test_a_damaged_signature_is_not_packed(signed: Path, tmp_path: Path) -> None:
    opened = open_bundle(signed)
    (signed / SIGNATURE).write_bytes(b"{}")
    with pytest.raises(SignatureError, match="is not a valid list of signatures"):
        pack(opened, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_signing_after_packing_changes_the_file(packed: Path, signed: Path, make_key: Callable[..., Path]) -> None:
    before = packed.read_bytes()
    key = make_key("second", "second")
    sign_bundle(signed, key.with_suffix(".key"))
    pack(open_bundle(signed), packed)
    assert packed.read_bytes() != before
    assert open_bundle(packed, trusted_keys=key).signer
