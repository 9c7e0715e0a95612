"""One image file to pixels. Size and soundness are read from the file's own structure before anything is decoded."""

from __future__ import annotations

import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.errors import BadInput
from edgeseg.types import Array, Frame

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
# 8192x8192, which a whole `edgeseg run` takes 0.9 GB for.
LARGEST_PIXELS = 1 << 26
_LARGEST_FILE = 1 << 31

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY_ALPHA = 4
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


def read_image(path: Path | str) -> Frame:
    """One PNG, JPEG, BMP or TIFF file as pixels.

    16-bit samples keep their upper byte (the full range of the type becomes 0..255), 1-, 2- and 4-bit gray is
    stretched to 0..255, a palette becomes its colours. An alpha channel is dropped, not blended: what was acquired is
    what is stored, and 32-bit exports often leave alpha at 0 throughout. An EXIF orientation is ignored, so that
    masks fit the stored rows and columns. Of a TIFF with several pages the first is read.

    Returns:
        [H, W] gray or [H, W, 3] RGB, uint8. A gray picture stored with three channels keeps three.

    Raises:
        BadInput: the file is missing, empty, truncated, damaged, of another kind or sample type, or has more than
            2**26 pixels; it names the path.
    """
    return decode_image(_read(Path(path)), str(path))


def decode_image(data: bytes, name: str) -> Frame:
    """The same from the content of a file; `name` stands in errors."""
    if not is_image(data[:8]):
        raise BadInput(f"{name} is not a PNG, JPEG, BMP or TIFF image")
    try:
        width, height = _size(data)
        check_pixels(width, height)
        pixels = _decode(data)
    except BadInput as error:
        raise BadInput(f"{name} {error}") from None
    except (struct.error, IndexError, OverflowError):
        raise BadInput(f"{name} is truncated or damaged: its header does not hold together") from None
    return _to_frame(pixels, name, gray=data[:8] == _PNG and data[25] == _PNG_GRAY_ALPHA)


def is_image(head: bytes) -> bool:
    """Whether the first bytes of a file (8 are enough) are those of a PNG, JPEG, BMP or TIFF."""
    return head[:8] == _PNG or head[:3] == b"\xff\xd8\xff" or head[:2] == b"BM" or head[:4] in (b"II*\0", b"MM\0*")


def check_pixels(width: int, height: int) -> None:
    """Raise BadInput, without a path, for a picture that has no pixels or more than 2**26."""
    if width < 1 or height < 1:
        raise BadInput(f"has size {width}x{height}, expected at least one pixel")
    if width * height > LARGEST_PIXELS:
        raise BadInput(f"has {width}x{height} pixels, expected at most {LARGEST_PIXELS} in all: it was not decoded")


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder by suffix, hidden ones left out, in natural order (frame2 before frame10)."""
    return [p for p in list_files(folder) if p.suffix.lower() in SUFFIXES]


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, hidden ones left out, in natural order."""
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file()), key=_natural)


class _Quiet:
    """OpenCV's log level, which is one for the whole process: lowered while any thread is inside."""

    lock = threading.Lock()
    inside = 0
    level = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own messages off stderr: what is wrong with a file is said once, by the error raised."""
    # Where the switch is depends on the version: cv2 itself until 4.12, cv2.utils.logging from 4.13.
    log: Any = getattr(cv2.utils, "logging", cv2)
    with _Quiet.lock:
        if _Quiet.inside == 0:
            _Quiet.level = log.getLogLevel()
            log.setLogLevel(0)
        _Quiet.inside += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.inside -= 1
            if _Quiet.inside == 0:
                log.setLogLevel(_Quiet.level)


def read_head(path: Path, count: int) -> bytes:
    """The first bytes of a file. Raises BadInput where it is missing, empty, unreadable or no file."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a file, expected an image, a clip or a DICOM file")
        with path.open("rb") as stream:
            head = stream.read(count)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise BadInput(f"{path} is empty")
    return head


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p]


def _read(path: Path) -> bytes:
    if not is_image(read_head(path, 8)):
        raise BadInput(f"{path} is not a PNG, JPEG, BMP or TIFF image")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise BadInput(f"{path} has {size} bytes, expected an image of at most {_LARGEST_FILE}")
    return path.read_bytes()


def _decode(data: bytes) -> Array:
    try:
        with quiet_opencv():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadInput(f"cannot be decoded: {error.err}") from error
    if pixels is None:
        raise BadInput("is truncated, damaged or of a kind that cannot be decoded: export it again as PNG")
    return pixels


def _to_frame(pixels: Array, name: str, *, gray: bool) -> Frame:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise BadInput(f"{name} has {pixels.dtype} samples, expected 8 or 16 bits unsigned: scale and save it as PNG")
    if pixels.ndim == 2:
        return pixels
    if gray or pixels.shape[2] < 3:
        return np.ascontiguousarray(pixels[:, :, 0])
    code = cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(pixels, code)  # type: ignore[return-value]


def _size(data: bytes) -> tuple[int, int]:
    """Width and height from the header; raises BadInput for a file that ends early or was damaged on the way."""
    if data[:8] == _PNG:
        return _png_size(data)
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if data[:2] == b"BM":
        return _bmp_size(data)
    return _tiff_size(data)


def _png_size(data: bytes) -> tuple[int, int]:
    # Every chunk has a checksum. Checked here, because libpng prints what it finds to stderr.
    offset, kind = 8, b""
    while kind != b"IEND":
        if offset + 12 > len(data):
            raise BadInput("is truncated: the PNG has no end")
        (length,) = struct.unpack_from(">I", data, offset)
        kind, end = data[offset + 4 : offset + 8], offset + 8 + length
        if end + 4 > len(data):
            raise BadInput("is truncated: the PNG has no end")
        if zlib.crc32(memoryview(data)[offset + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise BadInput(f"is damaged: PNG chunk {kind.decode('latin-1')!r} has a wrong checksum")
        offset = end + 4
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    size = (0, 0)
    offset = 2
    while True:
        if data[offset] != 0xFF:
            raise BadInput("is damaged: a JPEG marker was expected")
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            size = (width, height)
        if marker == _JPEG_SCAN:
            break
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    # Inside a scan every 0xFF of the data is followed by a zero: this pair can only be the end marker. A decoder
    # would fill what is missing with gray.
    if data.find(bytes((0xFF, _JPEG_END)), offset) < 0:
        raise BadInput("is truncated: the JPEG has no end")
    return size


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    found = {256: 0, 257: 0}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in found:
            found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[0]
    return found[256], found[257]
