"""Bundles: whatever was changed, cut, added or forged is a typed error before an engine sees a byte of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg import BundleError, BundleTooNew, EdgesegError, open_bundle
from edgeseg.durable import new_folder
from edgeseg.manifest import MANIFEST, decode_manifest, encode_manifest, seal
from edgeseg.types import Manifest, Preprocess

EMPTY = Manifest("x", ("background", "head"), Preprocess(32, 32))


def first_artifact(bundle: Path) -> Path:
    return sorted((bundle / "artifacts").iterdir())[0]


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    change(content)
    (bundle / MANIFEST).write_bytes(seal(content))


def listed_files(bundle: Path) -> list[Path]:
    content = json.loads((bundle / MANIFEST).read_text())
    records = [f for a in content["artifacts"] for f in a["files"]]
    records += [g[k] for g in content["golden"] for k in ("frame", "mask", "logits")]
    return [bundle / r["path"] for r in records]


def test_a_sound_bundle_opens_with_absolute_paths(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.classes == ("background", "foreground")
    assert (opened.preprocess.height, opened.preprocess.width) == (64, 96)
    for artifact in opened.artifacts:
        assert artifact.path.is_absolute()
        assert artifact.size_bytes == sum(f.path.stat().st_size for f in artifact.files)
        assert len(artifact.files) == (2 if artifact.format == "openvino" else 1)


def test_a_bundle_moves_with_its_folder(bundle_copy: Path, tmp_path: Path) -> None:
    moved = bundle_copy.rename(tmp_path / "elsewhere")
    assert all(a.path.is_relative_to(moved) for a in open_bundle(moved).artifacts)


def test_one_flipped_byte_in_any_listed_file_is_found(bundle_copy: Path) -> None:
    files = listed_files(bundle_copy)
    assert {p.suffix for p in files} == {".onnx", ".xml", ".bin", ".tflite", ".png", ".npy"}
    for path in files:
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        with pytest.raises(BundleError, match=f"{path.name} does not have the SHA-256"):
            open_bundle(bundle_copy)
        path.write_bytes(data)
    assert open_bundle(bundle_copy)


def test_a_truncated_or_missing_file_is_found(bundle_copy: Path) -> None:
    path = first_artifact(bundle_copy)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{path.name} has \d+ bytes, the manifest says \d+: it was changed"):
        open_bundle(bundle_copy)
    path.unlink()
    with pytest.raises(BundleError, match="is missing or not a plain file"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("where", ["../outside.onnx", "artifacts/../../outside.onnx", "ABSOLUTE"])
def test_a_path_that_leaves_the_bundle_is_refused(bundle_copy: Path, where: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    shutil.copy(first_artifact(bundle_copy), outside)
    named = str(outside) if where == "ABSOLUTE" else where

    def change(content: dict[str, Any]) -> None:
        content["artifacts"][0]["files"][0]["path"] = named

    edit(bundle_copy, change)
    with pytest.raises(BundleError, match="outside the bundle: it is damaged or hostile"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_links_are_refused_even_where_the_content_is_right(bundle_copy: Path, link: str, tmp_path: Path) -> None:
    inside = first_artifact(bundle_copy) if link == "file" else bundle_copy / "artifacts"
    inside.rename(tmp_path / "moved")
    inside.symlink_to(tmp_path / "moved")
    with pytest.raises(BundleError, match="not a plain file inside the bundle"):
        open_bundle(bundle_copy)


def test_a_later_schema_asks_for_an_upgrade(bundle_copy: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["schema"] = 3
        content["artifacts"] = "in a form of the future"

    edit(bundle_copy, change)
    with pytest.raises(BundleTooNew, match="has schema 3, this edgeseg reads up to 2: upgrade edgeseg"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 1}', b'{"schema": "1"}', b"\xff\xfe", b'{"schema": 1, "name": 3}']
)
def test_a_malformed_manifest_is_one_typed_error(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest.json is not a valid manifest") as caught:
        open_bundle(bundle_copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "caffe"), ("precision", "int4"), ("files", "model.onnx"), ("files", [{"path": 3}]), ("files", [])],
)
def test_an_artifact_that_cannot_be_is_refused(bundle_copy: Path, key: str, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        content["artifacts"][0][key] = value

    edit(bundle_copy, change)
    with pytest.raises(BundleError):
        open_bundle(bundle_copy)


def test_an_endless_manifest_is_not_read(bundle_copy: Path) -> None:
    with (bundle_copy / MANIFEST).open("ab") as stream:
        stream.truncate(17 << 20)
    with pytest.raises(BundleError, match="is larger than 16 MiB: not a manifest"):
        open_bundle(bundle_copy)


def test_what_is_no_bundle_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle, expected a folder"):
        open_bundle(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="is not a bundle, expected a folder"):
        open_bundle(tmp_path / "file")
    with pytest.raises(BundleError, match=r"has no manifest.json: not a bundle, or one whose writing was interrupted"):
        open_bundle(tmp_path)


def test_a_manifest_survives_a_round_trip_byte_for_byte(bundle: Path) -> None:
    data = (bundle / MANIFEST).read_bytes()
    assert encode_manifest(decode_manifest(data)) == data


def write(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(encode_manifest(EMPTY))


def test_a_folder_appears_at_once_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "b.edgeseg"
    with pytest.raises(ZeroDivisionError), new_folder(target) as staging:
        write(staging)
        assert not target.exists()
        raise ZeroDivisionError
    assert not list(target.parent.iterdir())
    with new_folder(target) as staging:
        write(staging)
    assert [p.name for p in target.parent.iterdir()] == ["b.edgeseg"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_an_older_bundle_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "b"
    with new_folder(target) as staging:
        write(staging)
        (staging / "old").touch()
    with pytest.raises(ZeroDivisionError), new_folder(target) as staging:
        raise ZeroDivisionError
    assert (target / "old").exists()
    with new_folder(target) as staging:
        write(staging)
    assert [p.name for p in target.iterdir()] == [MANIFEST]
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


CHILD = """
import os, sys, time
from pathlib import Path
from edgeseg.durable import new_folder
with new_folder(sys.argv[1]) as staging:
    (staging / "half").write_text("a file")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_remains_of_a_killed_writer_are_cleared_but_not_those_of_a_living_one(tmp_path: Path) -> None:
    target = tmp_path / "b.edgeseg"
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(target)], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 2
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        bystander = tmp_path / ".other.edgeseg.x.part"
        bystander.mkdir()
        with new_folder(target) as staging:
            write(staging)
        assert open_bundle(target)
        assert len(list(tmp_path.glob(".b.edgeseg.*.part"))) == 1
        assert bystander.exists()
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_a_kill_between_the_two_renames_gives_the_older_bundle_back(tmp_path: Path) -> None:
    target = tmp_path / "b.edgeseg"
    with new_folder(target) as staging:
        write(staging)
    old = tmp_path / ".b.edgeseg.k1ll3d.old"
    old.mkdir()
    target.rename(old / "bundle")
    with pytest.raises(ZeroDivisionError), new_folder(target):
        raise ZeroDivisionError
    assert open_bundle(target)
    assert [p.name for p in tmp_path.iterdir()] == ["b.edgeseg"]


def test_every_error_of_a_bundle_is_one_of_edgeseg() -> None:
    assert issubclass(BundleTooNew, BundleError)
    assert issubclass(BundleError, EdgesegError)
