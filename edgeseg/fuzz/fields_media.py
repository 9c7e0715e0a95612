"""Field mutations of golden frames: chunks of PNG, with their checksums set right, and the header of .npy."""

from __future__ import annotations

import random
import re
import struct
import zlib

_PNG_HEAD = 8
_SIZES = (0, 1, 2, 255, 256, 16_384, 60_000, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_MAGIC = b"\x93NUMPY"
_KINDS = (b"acTL", b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"eXIf", b"IDAT", b"IHDR", b"IEND", b"fdAT")
_DTYPES = ("'|O'", "'>f4'", "'<f8'", "'|S0'", "'<U9'", "'<f4'", "[('a','<f4')]", "'<M8[s]'", "'|V4'", "None", "'x'")
_SHAPES = ("()", "(1,)", "(0,)", "(-1,)", "(2**62,)", "(99999999999,1,1,1)", "(1,1,64,96,1)", "(True,)", "None", "'a'")

Chunks = list[tuple[bytes, bytes]]


def _chunks(data: bytes) -> Chunks:
    """Kind and content of every chunk."""
    found: Chunks = []
    at = _PNG_HEAD
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    return found


def _png(data: bytes, chunks: Chunks) -> bytes:
    return data[:_PNG_HEAD] + b"".join(encode_chunk(kind, body) for kind, body in chunks)


def encode_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of PNG with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _size(data: bytes, rng: random.Random) -> bytes:
    chunks = _chunks(data)
    kind, body = chunks[0]
    at = rng.choice((0, 4))
    chunks[0] = kind, body[:at] + struct.pack(">I", rng.choice(_SIZES)) + body[at + 4 :]
    return _png(data, chunks)


def _sample_type(data: bytes, rng: random.Random) -> bytes:
    """Bit depth, colour type, compression, filter or interlace."""
    chunks = _chunks(data)
    kind, body = chunks[0]
    at = rng.randrange(8, 13)
    chunks[0] = kind, body[:at] + bytes((rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)),)) + body[at + 1 :]
    return _png(data, chunks)


def _chunk_content(data: bytes, rng: random.Random) -> bytes:
    """Other bytes in a chunk, under a right checksum: what the decompressor then gets."""
    chunks = _chunks(data)
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    at = rng.randint(0, len(body))
    others = (body[:at], body[:at] + rng.randbytes(rng.randint(1, 8)) + body[at + 1 :], body + body, rng.randbytes(64))
    chunks[index] = kind, rng.choice(others)
    return _png(data, chunks)


def _pixels(data: bytes, rng: random.Random) -> bytes:
    """A sound picture of other pixels, a shorter or a much longer one."""
    chunks = _chunks(data)
    pixels = bytearray(zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT")))
    pixels[rng.randrange(len(pixels))] ^= 1 << rng.randrange(8)
    raw = rng.choice((bytes(pixels), bytes(pixels[:-7]), bytes(pixels) + bytes(1 << 20)))
    others = [c for c in chunks if c[0] != b"IDAT"]
    return _png(data, [*others[:-1], (b"IDAT", zlib.compress(raw, 1)), others[-1]])


def _drop_chunk(data: bytes, rng: random.Random) -> bytes:
    chunks = _chunks(data)
    del chunks[rng.randrange(len(chunks))]
    return _png(data, chunks)


def _add_chunk(data: bytes, rng: random.Random) -> bytes:
    chunks = _chunks(data)
    new = rng.choice((rng.choice(chunks), (rng.choice(_KINDS), rng.randbytes(rng.choice((0, 1, 13, 768))))))
    chunks.insert(rng.randint(0, len(chunks)), new)
    return _png(data, chunks)


def _rename_chunk(data: bytes, rng: random.Random) -> bytes:
    chunks = _chunks(data)
    index = rng.randrange(len(chunks))
    chunks[index] = rng.choice(_KINDS), chunks[index][1]
    return _png(data, chunks)


def _length(data: bytes, rng: random.Random) -> bytes:
    """A chunk that says it has another length."""
    at, starts = _PNG_HEAD, []
    for _, body in _chunks(data):
        starts.append(at)
        at += len(body) + 12
    at = rng.choice(starts)
    return data[:at] + struct.pack(">I", rng.choice(_SIZES)) + data[at + 4 :]


def _split(data: bytes) -> tuple[str, bytes]:
    """The header's text and the numbers of an .npy."""
    (size,) = struct.unpack_from("<H", data, 8)
    return data[10 : 10 + size].decode("latin-1"), data[10 + size :]


def encode_npy(header: str, numbers: bytes, version: bytes = b"\x01\x00") -> bytes:
    """An .npy with a header of one's own."""
    text = header.encode("latin-1")
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return _MAGIC + version + length + text + numbers


def _shape(data: bytes, rng: random.Random) -> bytes:
    header, numbers = _split(data)
    return encode_npy(re.sub(r"'shape': \([^)]*\)", f"'shape': {rng.choice(_SHAPES)}", header), numbers)


def _dtype(data: bytes, rng: random.Random) -> bytes:
    header, numbers = _split(data)
    return encode_npy(re.sub(r"'descr': '[^']*'", f"'descr': {rng.choice(_DTYPES)}", header), numbers)


def _header(data: bytes, rng: random.Random) -> bytes:
    """A header that is no dictionary of numpy's, or one of another order, version or length."""
    header, numbers = _split(data)
    order = header.replace("False", "True")
    texts = (order, "{" * 200, "__import__('os').abort()", header * 200, header.replace("}", ", 'x': 1}"), "")
    return encode_npy(rng.choice(texts), numbers, bytes((rng.choice((0, 1, 2, 3, 9)), 0)))


def _numbers(data: bytes, rng: random.Random) -> bytes:
    header, numbers = _split(data)
    others = (numbers[: len(numbers) // 2], numbers + numbers, numbers[::-1], struct.pack("<f", float("nan")) * 64)
    return encode_npy(header, rng.choice(others))


PNG_MUTATORS = (_size, _sample_type, _chunk_content, _pixels, _drop_chunk, _add_chunk, _rename_chunk, _length)
NPY_MUTATORS = (_shape, _dtype, _header, _numbers)
