"""Installing: checked, at once or not at all, never an older bundle unasked."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg import BundleError, SignatureError, bundle, open_bundle
from edgeseg.errors import EdgesegError
from edgeseg.install import install
from edgeseg.keys import encode_public_key, read_public_key
from edgeseg.manifest import MANIFEST
from edgeseg.signing import sign_bundle
from edgeseg.transport import pack
from edgeseg.trust import TRUSTED_KEYS

MakeFolder = Callable[..., Path]
MakeKey = Callable[..., Path]


@pytest.fixture
def make_signed(make_folder: MakeFolder, key: Path) -> MakeFolder:
    def make(folder: str, **options: object) -> Path:
        path = make_folder(folder, **options)
        sign_bundle(path, key.with_suffix(".key"))
        return path

    return make


@pytest.fixture
def source(signed: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The signed bundle, as a folder or as one file."""
    if request.param == "folder":
        return signed
    pack(open_bundle(signed), tmp_path / "head.tar.xz")
    return tmp_path / "head.tar.xz"


either = pytest.mark.parametrize("source", ["folder", "file"], indirect=True)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@either
def test_what_is_installed_is_the_source_and_says_who_signed_it(source: Path, signed: Path, key: Path) -> None:
    place = signed.parent / "device" / "head.edgeseg"
    done = install(source, place, trusted_keys=key)
    assert content(place) == content(signed)
    assert done.bundle.path == place.resolve()
    assert done.bundle.signer is not None
    assert (done.version.name, done.version.created, done.replaced) == ("head", "2026-05-01T12:00:00+00:00", None)
    assert done.version.digest == done.bundle.manifest.digest
    again = install(source, place, trusted_keys=key)
    assert again.replaced == done.version
    assert [p.name for p in place.parent.iterdir()] == [place.name]


@either
def test_without_keys_nothing_is_installed_unless_that_is_said(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    with pytest.raises(SignatureError, match="cannot be installed without keys to trust: give --key, set"):
        install(source, place)
    assert not place.exists()
    assert install(source, place, unsigned=True).bundle.signer is None


def test_the_setting_of_the_device_is_not_switched_off_by_unsigned(
    folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_KEYS, str(key.parent))
    with pytest.raises(SignatureError, match="is not signed"):
        install(folder, tmp_path / "place", unsigned=True)
    sign_bundle(folder, key.with_suffix(".key"))
    assert install(folder, tmp_path / "place").bundle.signer


@either
def test_a_bundle_that_is_not_trusted_leaves_the_older_one(
    source: Path, make_signed: MakeFolder, make_key: MakeKey, key: Path
) -> None:
    place = make_signed("place.edgeseg", seed=1)
    before = content(place)
    with pytest.raises(SignatureError, match="unknown key"):
        install(source, place, trusted_keys=make_key("other", "others"))
    assert content(place) == before
    assert open_bundle(place, trusted_keys=key)


@either
def test_a_key_that_has_expired_since_installs_nothing(source: Path, key: Path, tmp_path: Path) -> None:
    known = read_public_key(key)
    signer = open_bundle(source, trusted_keys=key).signer
    assert signer is not None
    # Good when it was signed, and still good to run: only installing asks for a key of today.
    key.write_bytes(encode_public_key(replace(known, expires=signer.signed_at[:10])))
    assert install(source, tmp_path / "place", trusted_keys=key)
    from edgeseg import install as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "now", lambda: "2099-01-01T00:00:00Z")
        with pytest.raises(SignatureError, match=r"is signed by release \(.*\), which expired on .*: have it signed"):
            install(source, tmp_path / "other", trusted_keys=key)
    assert not (tmp_path / "other").exists()
    assert open_bundle(tmp_path / "place", trusted_keys=key).signer


@pytest.mark.parametrize("created", ["2026-04-30T12:00:00+00:00", "2026-05-01T13:59:59+02:00", "", "yesterday"])
def test_an_older_bundle_is_refused_unless_that_is_said(
    make_signed: MakeFolder, key: Path, tmp_path: Path, created: str
) -> None:
    place = tmp_path / "place.edgeseg"
    install(make_signed("new.edgeseg"), place, trusted_keys=key)
    older = make_signed("old.edgeseg", created=created, seed=1)
    before = content(place)
    with pytest.raises(BundleError, match=r"before the bundle at .*2026-05-01T12:00:00.*say --allow-older"):
        install(older, place, trusted_keys=key)
    assert content(place) == before
    done = install(older, place, trusted_keys=key, allow_older=True)
    assert done.replaced is not None
    assert done.replaced.created == "2026-05-01T12:00:00+00:00"
    assert content(place) == content(older)


def test_a_damaged_bundle_is_repaired_and_anything_else_is_left_alone(
    make_signed: MakeFolder, key: Path, tmp_path: Path
) -> None:
    source, place = make_signed("new.edgeseg"), make_signed("place.edgeseg", seed=1)
    (place / MANIFEST).write_bytes(b"{")
    assert install(source, place, trusted_keys=key).replaced is None
    assert open_bundle(place, trusted_keys=key)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("three years")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        install(source, tmp_path / "thesis", trusted_keys=key)
    assert (tmp_path / "thesis" / "chapter").exists()


def test_a_bundle_that_is_not_sound_leaves_the_older_one(make_signed: MakeFolder, key: Path) -> None:
    source, place = make_signed("new.edgeseg"), make_signed("place.edgeseg", seed=1)
    before = content(place)
    (source / "artifacts" / "dense.onnx").write_bytes(bytes(9000))
    with pytest.raises(BundleError, match="does not have the SHA-256"):
        install(source, place, trusted_keys=key)
    (source / "artifacts" / "dense.onnx").unlink()
    with pytest.raises(BundleError, match="is missing"):
        install(source, place, trusted_keys=key)
    assert content(place) == before
    assert not list(place.parent.glob(".*.part"))


def test_a_source_that_is_nothing_is_one_error(tmp_path: Path, key: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle, expected a folder"):
        install(tmp_path / "nothing", tmp_path / "place", trusted_keys=key)
    assert not (tmp_path / "place").exists()


def test_a_bundle_replaced_between_its_manifest_and_its_files_is_one_error(
    make_signed: MakeFolder, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, other = make_signed("place.edgeseg"), make_signed("other.edgeseg", seed=1)
    check = bundle.check_papers

    def replaced_meanwhile(*arguments: object) -> object:
        monkeypatch.setattr(bundle, "check_papers", check)
        install(other, place, trusted_keys=key)
        return check(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle, "check_papers", replaced_meanwhile)
    with pytest.raises(BundleError, match="does not have the SHA-256 of the manifest: it was changed"):
        open_bundle(place, trusted_keys=key)
    assert content(place) == content(other)


def test_a_bundle_written_while_it_is_read_is_the_old_one_the_new_one_or_an_error(
    make_signed: MakeFolder, key: Path, tmp_path: Path
) -> None:
    sources = [make_signed(f"{n}.edgeseg", name=f"n{n}", seed=n) for n in range(2)]
    place = tmp_path / "place.edgeseg"
    install(sources[0], place, trusted_keys=key)
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            install(sources[turn % 2], place, trusted_keys=key)

    writer = threading.Thread(target=write)
    writer.start()
    seen, errors = set(), []
    try:
        for _ in range(300):
            try:
                opened = open_bundle(place, trusted_keys=key)
                seen.add(opened.manifest.name)
                data = {bundle.read_record(f) for a in opened.artifacts for f in a.files}
                number = int(opened.manifest.name[1:])
                assert data == {(sources[number] / f).read_bytes() for f in NAMES}
            except EdgesegError as error:
                errors.append(error)
    finally:
        stop.set()
        writer.join()
    assert seen == {"n0", "n1"}
    assert all(isinstance(e, BundleError) and "\n" not in str(e) for e in errors)
    assert open_bundle(place, trusted_keys=key)


NAMES = ("artifacts/dense.onnx", "artifacts/sparse.tflite")


def test_a_bundle_can_be_installed_over_itself(signed: Path, key: Path) -> None:
    before = content(signed)
    assert install(signed, signed, trusted_keys=key)
    assert content(signed) == before
    shutil.rmtree(signed)
    with pytest.raises(BundleError):
        install(signed, signed, trusted_keys=key)
