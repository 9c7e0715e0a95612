"""Hostile DICOM files, written byte by byte: no reader would let them be made."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial

from edgeseg.fuzz.corpus import Case, Scene, run

_EXPLICIT, _DEFLATED, _RLE, _JPEG2000, _JPEG = (
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"),
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50"),
)
_LONG_FORM = ("OB", "OW", "SQ", "UN", "UT")
_UNDEFINED = 2**32 - 1
_ITEM, _ITEM_END, _SEQUENCE_END = (struct.pack("<HHI", 0xFFFE, e, 0) for e in (0xE000, 0xE00D, 0xE0DD))


def _element(group: int, number: int, kind: str, data: bytes, length: int | None = None) -> bytes:
    size = len(data) + len(data) % 2 if length is None else length
    data += b" " * (len(data) % 2)
    form = "<HH2sHI" if kind in _LONG_FORM else "<HH2sH"
    fields = (0, size) if kind in _LONG_FORM else (size,)
    return struct.pack(form, group, number, kind.encode(), *fields) + data


def _short(group: int, number: int, value: int) -> bytes:
    return _element(group, number, "US", struct.pack("<H", value))


def _item(data: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def _dicom(
    rows: int = 64,
    columns: int = 64,
    *,
    frames: str = "",
    syntax: str = _EXPLICIT,
    pixels: bytes | None = None,
    more: bytes = b"",
    kind: bytes = b"MONOCHROME2",
    samples: int = 1,
    bits: int = 8,
) -> bytes:
    """A file of one gray picture or cine; `more` comes between the pictures' description and the pixels."""
    picture = _short(0x28, 2, samples) + _element(0x28, 4, "CS", kind)
    picture += _element(0x28, 8, "IS", frames.encode()) if frames else b""
    picture += _short(0x28, 0x10, rows) + _short(0x28, 0x11, columns) + _short(0x28, 0x100, bits)
    picture += _short(0x28, 0x101, bits) + _short(0x28, 0x102, bits - 1) + _short(0x28, 0x103, 0)
    data = _element(8, 0x60, "CS", b"US") + picture + more
    if pixels is None:
        data += _element(0x7FE0, 0x10, "OB", bytes(4096))
    else:
        data += _element(0x7FE0, 0x10, "OB", pixels + _SEQUENCE_END, _UNDEFINED)
    return _headed(data, syntax)


def _headed(data: bytes, syntax: str) -> bytes:
    meta = _element(2, 1, "OB", b"\0\1") + _element(2, 2, "UI", b"1.2.840.10008.5.1.4.1.1.6.1\0")
    meta += _element(2, 3, "UI", b"1.2.3\0") + _element(2, 0x10, "UI", syntax.encode().ljust(len(syntax) + 1, b"\0"))
    return bytes(128) + b"DICM" + _element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + data


def _nested(depth: int) -> bytes:
    sequence = _element(0x18, 0x6011, "SQ", b"", _UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, _UNDEFINED)
    return sequence * depth + (_ITEM_END + _SEQUENCE_END) * depth


def _deflated() -> bytes:
    """The deflated transfer syntax: the whole data set is compressed, here 2 GB of zeros behind a sound beginning."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    head = _dicom()[len(_headed(b"", _EXPLICIT)) :]
    head += _element(0x7FE1, 0x10, "OB", b"", 2**31)
    start = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a piece stands alone, so that one can be repeated.
    piece = deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return _headed(start + piece * 128 + deflate.flush(), _DEFLATED)


def _rle() -> bytes:
    """A run-length frame that goes on and on: each two bytes become 128."""
    frame = struct.pack("<16I", 1, 64, *([0] * 14)) + b"\x81\x00" * (1 << 20)
    return _dicom(64, 64, syntax=_RLE, pixels=_item(b"") + _item(frame))


def _jpeg2000() -> bytes:
    """A code stream of 2^31 columns and rows in a picture that says 64x64."""
    edge = 2**31 - 1
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, edge, edge, 0, 0, edge, edge, 0, 0, 1, 7, 1, 1)
    stream = b"\xff\x4f\xff\x51" + size + b"\xff\x52" + struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, 1)
    stream += b"\xff\x5c" + struct.pack(">HB", 4, 0x40) + b"\x40" + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1)
    return _dicom(64, 64, syntax=_JPEG2000, pixels=_item(b"") + _item(stream + b"\xff\x93" + bytes(64) + b"\xff\xd9"))


def _jpeg() -> bytes:
    stream = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65_535, 65_535, 1) + b"\x01\x11\x00\xff\xda"
    stream += struct.pack(">HB", 8, 1) + b"\x01\x00\x00\x3f\x00" + bytes(64) + b"\xff\xd9"
    return _dicom(64, 64, syntax=_JPEG, pixels=_item(b"") + _item(stream))


def _palette() -> bytes:
    """A palette that says it has 65536 entries of 16 bits, and has none."""
    descriptor = struct.pack("<HHH", 0, 0, 16)
    more = b"".join(_element(0x28, 0x1101 + i, "US", descriptor) for i in range(3))
    return _dicom(kind=b"PALETTE COLOR", more=more)


def _long_element() -> bytes:
    return _dicom(more=_element(0x28, 0x3000, "UN", b"x" * 64, 2**32 - 2))


def _times() -> bytes:
    """As many times as frames are announced, of which there is one."""
    return _dicom(frames="2147483647", more=_element(0x18, 0x1063, "DS", b"33.3"))


def _case(name: str, attacks: str, make: Callable[[], bytes], *, harmless: bool = False) -> Case:
    def feed(scene: Scene) -> list[str]:
        return run(scene, scene.file("a.dcm", make()))

    return Case(f"dicom {name}", attacks, feed, harmless=harmless)


CASES = (
    _case("of 65535x65535", "memory", partial(_dicom, 65_535, 65_535)),
    _case("of 8192x8192 without its pixels", "memory", partial(_dicom, 8192, 8192)),
    _case("of 2^31 frames", "memory", partial(_dicom, frames="2147483647")),
    _case("of 2^31 frames with their times", "memory", _times),
    _case("of 10^400 frames", "overflow", partial(_dicom, frames="9" * 400)),
    _case("of -1 frames", "overflow", partial(_dicom, frames="-1"), harmless=True),
    _case("with 10000 sequences in each other", "recursion", lambda: _dicom(more=_nested(10_000))),
    _case("deflated, 2 GB", "memory", _deflated),
    _case("run-length frame without end", "memory", _rle, harmless=True),
    _case("jpeg 2000 of 2^31x2^31", "memory", _jpeg2000),
    _case("jpeg of 65535x65535 in a 64x64 picture", "memory", _jpeg),
    _case("palette without colours", "overflow", _palette),
    _case("element of 2^32 bytes", "memory", _long_element),
    _case("of 255 samples a pixel", "memory", partial(_dicom, samples=255)),
    _case("of 1 bit a pixel", "overflow", partial(_dicom, bits=1), harmless=True),
    _case("of no rows", "overflow", partial(_dicom, 0, 64)),
)
