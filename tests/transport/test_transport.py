"""The one-file form of a bundle: small, reproducible, and written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeseg import BundleError, open_bundle
from edgeseg.manifest import MANIFEST, digest, seal
from edgeseg.transport import pack, transport_sizes, unpack
from edgeseg.types import Bundle

MakeBundle = Callable[..., Bundle]
Content = Callable[[Path], dict[str, bytes]]


def test_what_comes_out_is_what_went_in(sound: Bundle, packed: Path, tmp_path: Path, content: Content) -> None:
    opened = unpack(packed, tmp_path / "out")
    assert content(tmp_path / "out") == content(sound.path)
    assert opened.artifacts[0].path == tmp_path / "out" / "artifacts" / "dense.onnx"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_a_manifest_of_another_edgeseg_is_kept_byte_for_byte(sound: Bundle, tmp_path: Path) -> None:
    content = {**json.loads((sound.path / MANIFEST).read_text()), "of_the_future": 1}
    text = json.dumps({**content, "digest": digest(content)})
    (sound.path / MANIFEST).write_text(text)
    pack(open_bundle(sound.path), tmp_path / "f.tar.xz")
    unpack(tmp_path / "f.tar.xz", tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST).read_text() == text


def test_equal_bundles_give_equal_bytes(make_bundle: MakeBundle, packed: Path, tmp_path: Path) -> None:
    again = make_bundle("again")
    for number, path in enumerate(sorted(again.path.rglob("*"), reverse=True)):
        os.utime(path, (number, number))
        if path.is_file():
            path.chmod(0o600 + number)
    pack(again, tmp_path / "elsewhere.xz")
    assert (tmp_path / "elsewhere.xz").read_bytes() == packed.read_bytes()


def test_any_tar_lists_it(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        assert names == [MANIFEST, *sorted(names[1:])]
        assert all(m.isreg() and m.mode == 0o644 and m.mtime == 0 and not m.uid and not m.uname for m in archive)


def test_the_same_weights_in_two_formats_are_stored_once(make_bundle: MakeBundle, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).bytes(100_000)
    size = pack(make_bundle("twice", weights, weights, b"", b"", b""), tmp_path / "twice.xz")
    assert len(weights) < size < 1.05 * len(weights)


def test_the_size_of_an_artifact_is_what_it_adds_alone(sound: Bundle, make_bundle: MakeBundle, tmp_path: Path) -> None:
    sizes = transport_sizes(sound)
    assert set(sizes) == {"onnx-fp32", "tflite-int8"}
    assert sizes["tflite-int8"] < 0.4 * sizes["onnx-fp32"]
    nothing = (b"", b"", b"", b"")
    without = pack(make_bundle("without", b"", *nothing), tmp_path / "without.xz")
    alone = pack(make_bundle("alone", sound.artifacts[0].path.read_bytes(), *nothing), tmp_path / "alone.xz")
    assert sizes["onnx-fp32"] == pytest.approx(alone - without, abs=200)


def test_a_file_appears_at_once_or_not_at_all(sound: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "f.tar.xz"

    def fail() -> None:
        assert not target.exists()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pack(sound, target, advance=fail)
    assert not list(target.parent.iterdir())
    (target.parent / f".{target.name}.k1ll3d.part").mkdir()
    size = pack(sound, target)
    assert [p.name for p in target.parent.iterdir()] == ["f.tar.xz"]
    assert target.stat().st_size == size
    before = target.read_bytes()
    with pytest.raises(ZeroDivisionError):
        pack(sound, target, advance=lambda: 1 // 0)
    assert target.read_bytes() == before


def test_what_is_no_packed_bundle_is_never_overwritten(sound: Bundle, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("three years")
    for target in (tmp_path / "thesis", tmp_path):
        with pytest.raises(BundleError, match="exists and is not a packed bundle: choose another -o"):
            pack(sound, target)
        with pytest.raises(BundleError, match="exists and is not a bundle: choose another -o"):
            unpack(packed, target)
    with pytest.raises(BundleError, match="is inside the bundle it is made of"):
        pack(sound, sound.path / "artifacts" / "f.tar.xz")
    assert (tmp_path / "thesis").read_text() == "three years"


def test_an_older_bundle_gives_way_only_to_a_whole_one(
    sound: Bundle, packed: Path, make_bundle: MakeBundle, content: Content
) -> None:
    old = make_bundle("out", b"old", b"", b"", b"", b"")
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-40])
    with pytest.raises(BundleError, match="is cut short"):
        unpack(packed, old.path)
    assert open_bundle(old.path).artifacts[0].path.read_bytes() == b"old"
    packed.write_bytes(whole)
    unpack(packed, old.path)
    assert content(old.path) == content(sound.path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("artifacts/dense.onnx", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("artifacts/dense.onnx", lambda data: data[:-1]),
        ("artifacts/dense.onnx", lambda data: data * 2),
        (MANIFEST, lambda data: seal({**json.loads(data), "name": "other"})),
    ],
)
def test_a_bundle_changed_since_it_was_opened_is_not_packed(
    sound: Bundle, tmp_path: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    (sound.path / name).write_bytes(change((sound.path / name).read_bytes()))
    with pytest.raises(BundleError, match=f"{name} was changed since the bundle was opened"):
        pack(sound, tmp_path / "f.tar.xz")
    assert not (tmp_path / "f.tar.xz").exists()


def test_what_cannot_be_read_or_written_is_one_error(sound: Bundle, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing is not a bundle, expected a folder .* or one file"):
        unpack(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"cannot be packed to .*file/f: (Not a directory|File exists)"):
        pack(sound, tmp_path / "file" / "f")
    with pytest.raises(BundleError, match=r"cannot be unpacked to .*file/out: (Not a directory|File exists)"):
        unpack(packed, tmp_path / "file" / "out")


def test_no_room_is_known_before_anything_is_written(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(BundleError, match=r"needs 0\.0 MB, .* has 0\.0 MB free"):
        unpack(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


LIMITED = """
import resource, sys
from edgeseg import BundleError, open_bundle
from edgeseg.transport import pack, unpack
bundle = open_bundle(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
for act in (lambda: pack(bundle, sys.argv[3]), lambda: unpack(sys.argv[2], sys.argv[3])):
    try:
        act()
    except BundleError as error:
        print(error)
"""


def test_a_disk_that_fills_up_meanwhile_is_one_error_and_nothing_stays(
    sound: Bundle, packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "small").mkdir()
    arguments = [sys.executable, "-c", LIMITED, str(sound.path), str(packed), str(tmp_path / "small" / "x")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert f"cannot be packed to {tmp_path}/small/x: File too large" in first
    assert f"cannot be unpacked to {tmp_path}/small/x: File too large" in second
    assert not list((tmp_path / "small").iterdir())


def test_unpacking_takes_no_more_memory_than_the_window(make_bundle: MakeBundle, tmp_path: Path) -> None:
    large = make_bundle("large", bytes(64 << 20), b"", b"", b"", b"")
    assert pack(large, tmp_path / "f") < 20_000
    tracemalloc.start()
    unpack(tmp_path / "f", tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_a_folder_is_held_to_the_same_names_as_a_file(sound: Bundle) -> None:
    content = json.loads((sound.path / MANIFEST).read_text())
    content["artifacts"].append(content["artifacts"][0])
    (sound.path / MANIFEST).write_bytes(seal(content))
    with pytest.raises(BundleError, match="twice, or in two spellings"):
        open_bundle(sound.path)
