"""Hostile bundles, in both forms, by somebody who can set every hash right."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeseg.fuzz.corpus import Case, Scene, hostile_bundle
from edgeseg.fuzz.corpus_archives import touching_pickle
from edgeseg.fuzz.corpus_images import png, zeros
from edgeseg.fuzz.fields_media import encode_npy
from edgeseg.manifest import MANIFEST
from edgeseg.transport import SUFFIX, pack

_MIB = 1 << 20
_GOLDEN = "golden/000"
_ESCAPE = "../../escaped"


def _verify(bundle: Path) -> list[str]:
    return ["verify", str(bundle), "--runtime", "onnxruntime"]


def _inspect(bundle: Path) -> list[str]:
    return ["inspect", str(bundle)]


def _unpack(scene: Scene, file: Path) -> list[str]:
    return ["unpack", str(file), "-o", str(scene.out)]


def _naming(path: Callable[[Scene], str]) -> Callable[[Scene], list[str]]:
    """A manifest whose first artifact has another path, its hash and size right."""

    def make(scene: Scene) -> list[str]:
        def change(content: dict[str, Any]) -> None:
            content["artifacts"][0]["files"][0]["path"] = path(scene)

        return _verify(hostile_bundle(scene, change=change))

    return make


def _spoilt(spoil: Callable[[Path, Scene], object]) -> Callable[[Scene], list[str]]:
    return lambda scene: _verify(hostile_bundle(scene, spoil=lambda folder: spoil(folder, scene)))


def _swapped(folder: Path, name: str, put: Callable[[Path], object]) -> None:
    (folder / name).unlink()
    put(folder / name)


def _golden(suffix: str, data: Callable[[Scene], bytes]) -> Callable[[Scene], list[str]]:
    return lambda scene: _verify(hostile_bundle(scene, {f"{_GOLDEN}{suffix}": data(scene)}))


def _manifest(data: bytes) -> Callable[[Scene], list[str]]:
    return _spoilt(lambda folder, scene: (folder / MANIFEST).write_bytes(data))


def _npy(shape: str, descr: str = "<f4", data: bytes = bytes(64)) -> bytes:
    return encode_npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n", data)


def _repacked(change: Callable[[Path], None]) -> Callable[[Scene], list[str]]:
    """A transport file whose archive holds what Python's tarfile writes of a spoilt folder."""

    def make(scene: Scene) -> list[str]:
        folder = hostile_bundle(scene)
        change(folder)
        with tarfile.open(scene.folder / f"a{SUFFIX}", "w:xz", preset=0, format=tarfile.USTAR_FORMAT) as archive:
            archive.add(folder / MANIFEST, MANIFEST)
            archive.add(folder, ".")
        return _unpack(scene, scene.folder / f"a{SUFFIX}")

    return make


def _tar(*entries: tuple[str, bytes, str]) -> Callable[[Scene], list[str]]:
    """An archive of (name, type, link) behind the sound manifest."""

    def make(scene: Scene) -> list[str]:
        with tarfile.open(scene.folder / f"a{SUFFIX}", "w:xz", preset=0, format=tarfile.USTAR_FORMAT) as archive:
            data = (scene.bundle.path / MANIFEST).read_bytes()
            first = tarfile.TarInfo(MANIFEST)  # as `edgeseg pack` writes it, so that the reader goes on
            first.size = len(data)
            archive.addfile(first, io.BytesIO(data))
            for name, kind, link in entries:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, link
                archive.addfile(entry)
        return _unpack(scene, scene.folder / f"a{SUFFIX}")

    return make


def _xz_bomb(scene: Scene) -> list[str]:
    """A few hundred kB that become 1 GB, announced as the manifest."""
    entry = tarfile.TarInfo(MANIFEST)
    entry.size = 1024 * _MIB
    xz = lzma.LZMACompressor(preset=0)
    parts = [xz.compress(entry.tobuf(tarfile.USTAR_FORMAT)), *(xz.compress(bytes(16 * _MIB)) for _ in range(64))]
    return _unpack(scene, scene.file(f"a{SUFFIX}", b"".join(parts) + xz.flush()))


def _xz_bomb_behind(scene: Scene) -> list[str]:
    """A sound bundle, and behind it another stream that becomes 1 GB."""
    pack(scene.bundle, scene.folder / f"a{SUFFIX}")
    bomb = lzma.compress(bytes(64 * _MIB), preset=0) * 16
    return _unpack(scene, scene.file(f"a{SUFFIX}", (scene.folder / f"a{SUFFIX}").read_bytes() + bomb))


def _xz_window(scene: Scene) -> list[str]:
    """A stream that asks its reader for a window of 1.5 GB."""
    data = bytearray(lzma.compress(bytes(4096), preset=0))
    data[data.index(b"\x21\x01", 12) + 2] = 39  # behind the filter's id and size
    size = 4 * (data[12] + 1)
    data[12 + size - 4 : 12 + size] = zlib.crc32(data[12 : 12 + size - 4]).to_bytes(4, "little")
    return _unpack(scene, scene.file(f"a{SUFFIX}", bytes(data)))


def _fifo(scene: Scene, name: str) -> Path:
    path = scene.folder / name
    os.mkfifo(path)
    return path


def _sizes(content: dict[str, Any]) -> None:
    for record in content["artifacts"][0]["files"]:
        record["size_bytes"] = 2**52


def _claiming(change: Callable[[dict[str, Any]], object]) -> Callable[[Scene], list[str]]:
    return lambda scene: _verify(hostile_bundle(scene, change=change))


def _first_link(folder: Path, scene: Scene) -> None:
    """The first golden frame is a link to a file outside."""
    _swapped(folder, f"{_GOLDEN}.png", lambda p: p.symlink_to(scene.secret))


_LINK, _HARD, _DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE

CASES = (
    Case("manifest names ../../../etc/passwd", "escape", _naming(lambda s: "../../../../etc/passwd")),
    Case("manifest names /etc/passwd", "escape", _naming(lambda s: "/etc/passwd")),
    Case("manifest names a secret by a way around", "escape", _naming(lambda s: f"artifacts/../../../{s.secret.name}")),
    Case("manifest names itself", "confusion", _naming(lambda s: MANIFEST)),
    Case("manifest names a device", "endless", _naming(lambda s: "/dev/zero")),
    Case("manifest with a file of 2^52 bytes", "memory", _claiming(_sizes)),
    Case(
        "manifest with a picture of 2^31x2^31",
        "memory",
        _claiming(lambda c: c["preprocess"].update(height=2**31, width=2**31)),
    ),
    Case(
        "manifest with a picture of 60000x60000",
        "memory",
        _claiming(lambda c: c["preprocess"].update(height=60_000, width=60_000)),
    ),
    Case(
        "manifest with tensors of 2^62 numbers",
        "memory",
        _claiming(lambda c: [a["inputs"][0].update(shape=[1, 1, 2**31, 2**31]) for a in c["artifacts"]]),
        harmless=True,
    ),
    Case("manifest of a million brackets", "recursion", _manifest(b"[" * 1_000_000 + b"]" * 1_000_000)),
    Case("manifest of 1 GB", "memory", _spoilt(lambda folder, s: os.truncate(folder / MANIFEST, 1 << 30))),
    Case("manifest that is a pipe", "hang", _spoilt(lambda folder, s: _swapped(folder, MANIFEST, os.mkfifo))),
    Case(
        "manifest that is a link to /dev/zero",
        "endless",
        _spoilt(lambda folder, s: _swapped(folder, MANIFEST, lambda p: p.symlink_to("/dev/zero"))),
    ),
    Case("bundle whose golden frame is a link", "escape", _spoilt(_first_link)),
    Case(
        "bundle whose golden frame is a pipe",
        "hang",
        _spoilt(lambda folder, s: _swapped(folder, f"{_GOLDEN}.png", os.mkfifo)),
    ),
    Case(
        "bundle whose golden frame is a link to /dev/zero",
        "endless",
        _spoilt(lambda folder, s: _swapped(folder, f"{_GOLDEN}.png", lambda p: p.symlink_to("/dev/zero"))),
    ),
    Case(
        "bundle whose signature is a link to /dev/zero",
        "endless",
        _spoilt(lambda folder, s: (folder / "signature.json").symlink_to("/dev/zero")),
    ),
    Case("bundle that is /dev/zero", "endless", lambda s: _inspect(Path("/dev/zero"))),
    Case("bundle that is a pipe", "hang", lambda s: _inspect(_fifo(s, "a.edgeseg"))),
    Case("golden frame of 60000x60000", "memory", _golden(".png", lambda s: png(60_000, 60_000, zeros(8 * _MIB)))),
    Case("golden mask of 60000x60000", "memory", _golden(".mask.png", lambda s: png(60_000, 60_000, zeros(8 * _MIB)))),
    Case(
        "golden logits with a pickle", "code", _golden(".npy", lambda s: _npy("(1,)", "|O", touching_pickle(s.canary)))
    ),
    Case("golden logits of 2^60 numbers", "memory", _golden(".npy", lambda s: _npy("(1, 1, 1073741824, 1073741824)"))),
    Case("golden logits of 4 GB in 64 bytes", "memory", _golden(".npy", lambda s: _npy("(1, 1, 32768, 32768)"))),
    Case("golden logits with a header of 1 MB", "recursion", _golden(".npy", lambda s: encode_npy("(" * 60_000, b""))),
    Case("transport file that inflates to 1 GB", "memory", _xz_bomb, 60),
    Case("transport file with a bomb behind it", "memory", _xz_bomb_behind, 60),
    Case("transport file with a window of 1.5 GB", "memory", _xz_window),
    Case("transport file with ../../escaped", "escape", _tar((_ESCAPE, tarfile.REGTYPE, ""))),
    Case(
        "transport file with a link to outside",
        "escape",
        _tar(("artifacts", _LINK, "/tmp"), ("artifacts/escaped", tarfile.REGTYPE, "")),
    ),
    Case("transport file with a hard link to outside", "escape", _tar(("artifacts/model.onnx", _HARD, "/etc/passwd"))),
    Case("transport file with a device", "escape", _tar(("artifacts/model.onnx", _DEVICE, ""))),
    Case("transport file written by another tar", "confusion", _repacked(lambda folder: None)),
)
