"""Hostile transport files: whatever was forged, one typed error comes of it, at once, and nothing stays."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg import BundleError, BundleTooNew, open_bundle
from edgeseg.manifest import MANIFEST, seal
from edgeseg.transport import unpack
from edgeseg.types import Bundle

END = bytes(1024)


def header(name: str, size: int, **fields: Any) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry.tobuf(tarfile.GNU_FORMAT if len(name) > 100 else tarfile.USTAR_FORMAT)


def entry(name: str, data: bytes, **fields: Any) -> bytes:
    return header(name, fields.pop("size", len(data)), **fields) + data + bytes(-len(data) % 512)


class Forge:
    """The pieces of a sound archive, to be put together wrongly."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = (bundle.path / MANIFEST).read_bytes()
        names = (p.relative_to(bundle.path).as_posix() for p in bundle.path.rglob("*") if p.is_file())
        self.names = sorted(n for n in names if n != MANIFEST)
        self.files = {n: (bundle.path / n).read_bytes() for n in self.names}

    def first(self, manifest: bytes | None = None) -> bytes:
        return entry(MANIFEST, self.manifest if manifest is None else manifest)

    def rest(self) -> list[bytes]:
        return [entry(n, self.files[n]) for n in self.names]

    def xz(self, *pieces: bytes, end: bytes = END) -> bytes:
        return lzma.compress(b"".join(pieces) + end, preset=0)

    def edited(self, change: Callable[[dict[str, Any]], None]) -> bytes:
        """An archive whose manifest was edited and whose entries follow it."""
        content: dict[str, Any] = json.loads(self.manifest)
        change(content)
        try:
            manifest = seal(content)
        except ValueError:  # a number that JSON has no room for
            manifest = json.dumps(content).encode()
        return self.xz(self.first(manifest), *self.rest())

    def named(self, name: str, number: int = 0) -> bytes:
        def change(content: dict[str, Any]) -> None:
            content["artifacts"][number]["files"][0]["path"] = name

        return self.edited(change)

    def sized(self, size: object) -> bytes:
        def change(content: dict[str, Any]) -> None:
            content["artifacts"][0]["files"][0]["size_bytes"] = size

        return self.edited(change)

    def instead(self, index: int, piece: bytes) -> bytes:
        rest = self.rest()
        rest[index] = piece
        return self.xz(self.first(), *rest)


def a_zip(forge: Forge) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../evil", "x")
    return stream.getvalue()


def many_files(content: dict[str, Any]) -> None:
    record = content["artifacts"][0]["files"][0]
    content["artifacts"][0]["files"] = [record | {"path": f"a/{n}", "size_bytes": 0} for n in range(5000)]


def wide_window(forge: Forge) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 << 20}]
    return lzma.compress(b"".join((forge.first(), *forge.rest(), END)), filters=filters)


def other_bytes(forge: Forge) -> bytes:
    data = forge.files[forge.names[0]]
    return forge.instead(0, entry(forge.names[0], data[:-1] + bytes([data[-1] ^ 1])))


DEEP = b'{"schema": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HOSTILE: dict[str, tuple[Callable[[Forge], bytes], str]] = {
    "empty": (lambda f: b"", "is not a bundle"),
    "text": (lambda f: b"hello\n", "is not a bundle"),
    "zip": (a_zip, "is not a bundle"),
    "plain tar": (lambda f: b"".join((f.first(), *f.rest(), END)), "is not a bundle"),
    "old lzma": (lambda f: lzma.compress(f.first(), format=lzma.FORMAT_ALONE), "is not a bundle"),
    "magic only": (lambda f: b"\xfd7zXZ\x00", "cut short"),
    "xz of nothing": (lambda f: lzma.compress(b""), "ends before"),
    "noise behind the magic": (lambda f: b"\xfd7zXZ\x00" + bytes(range(256)) * 9, "damaged"),
    "window of 128 MiB": (wide_window, "damaged.*emory"),
    "not an archive": (lambda f: lzma.compress(b"no tar " * 999), "does not begin with a manifest"),
    "no manifest": (lambda f: f.xz(*f.rest()), "does not begin with a manifest"),
    "manifest is a link": (
        lambda f: f.xz(header(MANIFEST, 0, type=tarfile.SYMTYPE, linkname="/etc/passwd"), *f.rest()),
        "does not begin with a manifest",
    ),
    "manifest of 8 GiB": (lambda f: f.xz(header(MANIFEST, (8 << 30) - 1)), "larger than 16 MiB"),
    "manifest of negative size": (
        lambda f: f.xz(header(MANIFEST, 0).replace(b"00000000000\x00", b"-0000000001\x00", 1)),
        "does not begin with a manifest",
    ),
    "manifest cut short": (lambda f: f.xz(header(MANIFEST, 9999), f.manifest[:10], end=b""), "ends before"),
    "manifest not JSON": (lambda f: f.xz(f.first(b"{")), "not a valid manifest"),
    "manifest nested deeply": (lambda f: f.xz(f.first(DEEP)), "not a valid manifest"),
    "manifest twice": (lambda f: f.xz(f.first(), f.first(), *f.rest()), "header of"),
    "pax header first": (
        lambda f: f.xz(entry("p", b"30 size=99999999999999999999\n", type=tarfile.XHDTYPE), f.first(), *f.rest()),
        "does not begin with a manifest",
    ),
    "path up": (lambda f: f.named("../escaped.onnx"), "outside the bundle"),
    "path up, hidden": (lambda f: f.named("artifacts/../../escaped.onnx"), "outside the bundle"),
    "absolute path": (lambda f: f.named("/tmp/escaped.onnx"), "outside the bundle"),
    "backslashes": (lambda f: f.named("..\\escaped.onnx"), "no portable file name"),
    "drive": (lambda f: f.named("C:/escaped.onnx"), "no portable file name"),
    "line break": (lambda f: f.named("a\nerror: b"), "no portable file name"),
    "hidden file": (lambda f: f.named(".bashrc"), "no portable file name"),
    "empty name": (lambda f: f.named(""), "no portable file name"),
    "NUL": (lambda f: f.named("a\0b"), "no portable file name"),
    "long name": (lambda f: f.named("a" * 300), "no portable file name"),
    "name twice": (lambda f: f.named("artifacts/sparse.tflite"), "twice, or in two spellings"),
    "names that differ in case": (lambda f: f.named("artifacts/SPARSE.tflite"), "twice, or in two spellings"),
    "folders that differ in case": (lambda f: f.named("Artifacts/x"), "twice, or in two spellings"),
    "a file that is a folder": (lambda f: f.named("artifacts"), "twice, or in two spellings"),
    "a file called as the manifest": (lambda f: f.named("Manifest.json"), "twice, or in two spellings"),
    "negative size": (lambda f: f.sized(-1), "damaged or hostile"),
    "8 GiB": (lambda f: f.sized(8 << 30), "damaged or hostile"),
    "2^70 bytes": (lambda f: f.sized(1 << 70), "not a valid manifest|damaged or hostile"),
    "5000 files": (lambda f: f.edited(many_files), "lists 500. files.*damaged or hostile"),
    "artifact without files": (lambda f: f.edited(lambda c: c["artifacts"][0].update(files=[])), "lists no files"),
    "symlink": (
        lambda f: f.instead(0, header(f.names[0], 0, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "header of artifacts/dense.onnx",
    ),
    "hard link": (
        lambda f: f.instead(1, header(f.names[1], 0, type=tarfile.LNKTYPE, linkname=f.names[0])),
        "header of artifacts/sparse.tflite",
    ),
    "device": (lambda f: f.instead(0, header(f.names[0], 0, type=tarfile.CHRTYPE)), "header of"),
    "set-user-id bit": (lambda f: f.instead(0, entry(f.names[0], f.files[f.names[0]], mode=0o4755)), "header of"),
    "file larger than listed": (
        lambda f: f.instead(0, entry(f.names[0], f.files[f.names[0]] + b"x" * 512)),
        "header of",
    ),
    "file longer than its header": (
        lambda f: f.instead(0, entry(f.names[0], f.files[f.names[0]], size=16000) + b"x" * (1 << 20)),
        "header of|padding of",
    ),
    "data in the padding": (
        lambda f: f.instead(0, entry(f.names[0], f.files[f.names[0]]).rstrip(b"\0").ljust(512 + 16384, b"!")),
        "padding of artifacts/dense.onnx",
    ),
    "other order": (lambda f: f.xz(f.first(), *f.rest()[::-1]), "header of"),
    "a file more": (lambda f: f.xz(f.first(), *f.rest(), entry("evil", b"x")), "the end is not"),
    "a file less": (lambda f: f.xz(f.first(), *f.rest()[:-1]), "header of"),
    "no end": (lambda f: f.xz(f.first(), *f.rest(), end=b""), "ends before"),
    "64 MiB behind the end": (lambda f: f.xz(f.first(), *f.rest(), end=END + bytes(64 << 20)), "goes on behind"),
    "bytes behind the stream": (lambda f: f.xz(f.first(), *f.rest()) + b"\0\0\0\0", "goes on behind"),
    "a second stream": (lambda f: f.xz(f.first(), *f.rest()) + lzma.compress(b"evil"), "goes on behind"),
    "other bytes": (other_bytes, "artifacts/dense.onnx does not have the SHA-256"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_typed_error_and_leaves_nothing(
    name: str, sound: Bundle, tmp_path: Path, temporary: Path
) -> None:
    make, reason = HOSTILE[name]
    room = tmp_path / "room"
    room.mkdir()
    file = tmp_path / "hostile.tar.xz"
    file.write_bytes(make(Forge(sound)))
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda: unpack(file, room / "out"), lambda: open_bundle(file)):
        tracemalloc.start()
        with pytest.raises(BundleError, match=reason) as caught:
            attempt()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)
        assert peak < 16 << 20
        assert sorted(tmp_path.rglob("*")) == before
        assert not list(temporary.iterdir())


def test_the_forge_itself_is_sound(sound: Bundle, tmp_path: Path) -> None:
    forge = Forge(sound)
    (tmp_path / "f").write_bytes(forge.xz(forge.first(), *forge.rest()))
    assert unpack(tmp_path / "f", tmp_path / "out")


def test_a_newer_schema_asks_for_an_upgrade(sound: Bundle, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(Forge(sound).edited(lambda c: c.update(schema=99)))
    with pytest.raises(BundleTooNew, match=r"f: manifest.json has schema 99, .* upgrade edgeseg"):
        unpack(tmp_path / "f", tmp_path / "out")


def test_flipped_bits_and_cuts_anywhere_are_found(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    places = [*range(64), *range(64, len(data) - 64, len(data) // 150), *range(len(data) - 64, len(data))]
    flipped = [data[:n] + bytes([data[n] ^ 1 << n % 8]) + data[n + 1 :] for n in places]
    for changed in (*flipped, *(data[:n] for n in range(0, len(data), len(data) // 40))):
        packed.write_bytes(changed)
        with pytest.raises(BundleError):
            open_bundle(packed)
    packed.write_bytes(data)
    assert unpack(packed, tmp_path / "out")
