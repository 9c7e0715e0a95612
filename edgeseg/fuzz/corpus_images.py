"""Hostile pictures and clips, and device files where a picture is expected."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from edgeseg.fuzz.corpus import IDENTITY, Case, Scene, convert, run
from edgeseg.fuzz.fields_media import encode_chunk

_PNG = b"\x89PNG\r\n\x1a\n"
_MIB = 1 << 20


def png(width: int, height: int, pixels: bytes, *extra: tuple[bytes, bytes], colour: int = 0) -> bytes:
    """A PNG of 8 bits a sample, of any size and content; `extra` chunks come before the pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)), *extra)
    return _PNG + b"".join(encode_chunk(*c) for c in (*chunks, (b"IDAT", pixels), (b"IEND", b"")))


def zeros(size: int) -> bytes:
    """Compressed zeros: a thousandth of what they become."""
    deflate = zlib.compressobj(9)
    parts = [deflate.compress(bytes(min(16 * _MIB, size - at))) for at in range(0, size, 16 * _MIB)]
    return b"".join(parts) + deflate.flush()


def _text_bomb() -> bytes:
    text = (b"zTXt", b"Comment\0\0" + zeros(1024 * _MIB))
    return png(8, 8, zlib.compress(bytes(72)), text)


def _bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1 << 20, 0, 0, 1078) + head + bytes(2048)


def _jpeg(width: int, height: int) -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return (
        b"\xff\xd8" + frame + b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00\x00\x3f\x00" + bytes(64) + b"\xff\xd9"
    )


def _tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """A TIFF of one directory; entries are (tag, type, count, value)."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8) + bytes(256)


def _gray_tiff(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    basic = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
    return _tiff(*sorted((*basic, (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 64), *more)))


def _riff(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + struct.pack("<I", len(body)) + body


def _avi(width: int, height: int, frames: int, size: int | None = None) -> bytes:
    """An uncompressed AVI that announces `frames` frames and has a few bytes of one."""
    main = struct.pack("<10I16x", 33_333, 0, 0, 16, frames, 0, 1, 0, width, height)
    stream = b"vidsDIB " + struct.pack("<IIIIIIIIIIHHHH", 0, 0, 0, 1, 30, 0, frames, 0, 0, 0, 0, 0, width % 65536, 1)
    form = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, size or 0, 0, 0, 0, 0)
    streams = _riff(b"LIST", b"strl", _riff(b"strh", stream), _riff(b"strf", form))
    header = _riff(b"LIST", b"hdrl", _riff(b"avih", main), streams)
    return _riff(b"RIFF", b"AVI ", header, _riff(b"LIST", b"movi", _riff(b"00db", bytes(256))))


def _box(kind: bytes, *parts: bytes, size: int | None = None) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8 if size is None else size) + kind + body


def _mp4_nested() -> bytes:
    box = b""
    for _ in range(5000):
        box = _box(b"moov", box)
    return _box(b"ftyp", b"isom\0\0\2\0isom") + box


def _mp4_tables() -> bytes:
    """Sample tables that announce two billion entries."""
    counts = struct.pack(">II", 0, 2**31 - 1)
    tables = b"".join(_box(k, counts) for k in (b"stsd", b"stts", b"stsc", b"stco"))
    table = _box(b"stbl", tables, _box(b"stsz", struct.pack(">III", 0, 0, 2**31 - 1)))
    handler = _box(b"hdlr", bytes(8), b"vide", bytes(13))
    media = _box(b"mdia", _box(b"mdhd", bytes(12), struct.pack(">II", 30, 2**31)), handler, _box(b"minf", table))
    return _box(b"ftyp", b"isom\0\0\2\0isom") + _box(b"moov", _box(b"trak", media)) + _box(b"mdat", size=2**31)


def _picture(name: str, data: Callable[[], bytes]) -> Callable[[Scene], list[str]]:
    return lambda scene: run(scene, scene.file(name, data()))


def _fifo(scene: Scene, name: str) -> Path:
    path = scene.folder / name
    os.mkfifo(path)
    return path


def _link(scene: Scene, name: str, to: Path | str) -> Path:
    path = scene.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
    return path


def _folder_of(scene: Scene, to: str) -> list[str]:
    _link(scene, "frames/images/000.png", to)
    return run(scene, scene.folder / "frames")


def _calibration(scene: Scene, data: bytes) -> list[str]:
    scene.file("frames/images/000.png", data)
    return convert(scene, IDENTITY, "--size", "32x32", "--calibration", str(scene.folder / "frames"))


def _device_calibration(scene: Scene) -> list[str]:
    _link(scene, "frames/images/000.png", "/dev/zero")
    return convert(scene, IDENTITY, "--size", "32x32", "--calibration", str(scene.folder / "frames"))


def _playlist(scene: Scene) -> list[str]:
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{scene.secret}\n#EXT-X-ENDLIST\n"
    return run(scene, scene.file("list.mp4", text.encode()))


CASES = (
    Case("png of 60000x60000", "memory", _picture("a.png", lambda: png(60_000, 60_000, zeros(8 * _MIB)))),
    Case(
        "png as large as is allowed", "memory", _picture("a.png", lambda: png(8192, 8192, zeros(8193 * 8192))), 60, True
    ),
    Case("png with 1 GB of compressed text", "memory", _picture("a.png", _text_bomb), harmless=True),
    Case("png of 2^31 rows", "overflow", _picture("a.png", lambda: png(1, 2**31 - 1, zeros(_MIB)))),
    Case(
        "png with more pixels than its size",
        "overflow",
        _picture("a.png", lambda: png(8, 8, zeros(512 * _MIB))),
        30,
        True,
    ),
    Case("tiff of 60000x60000", "memory", _picture("a.tif", lambda: _gray_tiff(60_000, 60_000))),
    Case(
        "tiff with 65535 samples a pixel",
        "memory",
        _picture("a.tif", lambda: _gray_tiff(8192, 8192, (277, 3, 1, 65_535))),
    ),
    Case(
        "tiff with a tile of 2^30",
        "memory",
        _picture("a.tif", lambda: _gray_tiff(64, 64, (322, 4, 1, 2**15), (323, 4, 1, 2**15))),
    ),
    Case("tiff with 2^31 strips", "memory", _picture("a.tif", lambda: _gray_tiff(8192, 8192, (273, 4, 2**31 - 1, 8)))),
    Case("bmp of 60000x60000", "memory", _picture("a.bmp", lambda: _bmp(60_000, 60_000))),
    Case("bmp of -2^31 rows", "overflow", _picture("a.bmp", lambda: _bmp(1, -(2**31)))),
    Case("jpeg of 65535x65535", "memory", _picture("a.jpg", lambda: _jpeg(65_535, 65_535))),
    Case("jpeg of 16384x16383 in 100 bytes", "memory", _picture("a.jpg", lambda: _jpeg(16_384, 16_383))),
    Case("avi of 65535x65535", "memory", _picture("a.avi", lambda: _avi(65_535, 65_535, 1))),
    Case("avi of 2^31 frames", "time", _picture("a.avi", lambda: _avi(64, 64, 2**31 - 1))),
    Case("avi with a frame of 2^31 bytes", "memory", _picture("a.avi", lambda: _avi(16_000, 16_000, 1, 2**31 - 1))),
    Case("mp4 with 5000 boxes in each other", "recursion", _picture("a.mp4", _mp4_nested)),
    Case("mp4 with tables of 2^31 samples", "memory", _picture("a.mp4", _mp4_tables)),
    Case("clip that is a playlist of another file", "escape", _playlist),
    Case("device as INPUT: /dev/zero", "endless", lambda scene: run(scene, Path("/dev/zero"))),
    Case("device as INPUT: a pipe", "hang", lambda scene: run(scene, _fifo(scene, "a.png"))),
    Case(
        "device as INPUT: a link to /dev/zero", "endless", lambda scene: run(scene, _link(scene, "a.png", "/dev/zero"))
    ),
    Case("device in a folder of frames", "endless", lambda scene: _folder_of(scene, "/dev/zero")),
    Case("device as a calibration image", "endless", _device_calibration, 60),
    Case(
        "calibration image of 60000x60000",
        "memory",
        lambda scene: _calibration(scene, png(60_000, 60_000, zeros(_MIB))),
        60,
    ),
)
