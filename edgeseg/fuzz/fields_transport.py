"""Field mutations of the transport file: fields of the xz container, and of the tar headers inside it.

Checksums are set right, so that what is behind them is reached.
"""

from __future__ import annotations

import lzma
import random
import struct
import tarfile
import zlib
from functools import lru_cache

_STREAM_HEADER = 12
_BLOCK = 512
_NAMES = ("../../../../tmp/escape", "/etc/passwd", "manifest.json", "./manifest.json", "a" * 99, "", "MANIFEST.JSON")
_TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)
_SIZES = (0, 1, 511, 513, 2**20, 8**11 - 1)


@lru_cache(maxsize=4)
def _members(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Header and padded content of each member of the archive."""
    tar, at = lzma.decompress(data), 0
    found = []
    while tar[at : at + 1] != b"\0":
        size = int(tar[at + 124 : at + 135], 8)
        end = at + _BLOCK + size + -size % _BLOCK
        found.append((tar[at : at + _BLOCK], tar[at + _BLOCK : end]))
        at = end
    return tuple(found)


def _packed(members: list[tuple[bytes, bytes]], end: bytes = bytes(2 * _BLOCK)) -> bytes:
    return lzma.compress(b"".join(header + body for header, body in members) + end, preset=0)


def _resealed(data: bytes, start: int, size: int) -> bytes:
    """The CRC-32 behind a field of xz as it must be."""
    checked = data[start : start + size]
    return data[: start + size] + struct.pack("<I", zlib.crc32(checked)) + data[start + size + 4 :]


def _stream_flags(data: bytes, rng: random.Random) -> bytes:
    """Another kind of check, or reserved bits, at the beginning of the stream."""
    flags = bytes((rng.choice((0, 0, 1, 255)), rng.randrange(256)))
    return _resealed(data[:6] + flags + data[8:], 6, 2)


def _block_header(data: bytes, rng: random.Random) -> bytes:
    """Another filter, dictionary size or flag of the block."""
    size = 4 * (data[_STREAM_HEADER] + 1)
    at = _STREAM_HEADER + rng.randrange(0, size - 4)
    return _resealed(data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :], _STREAM_HEADER, size - 4)


def _index_size(data: bytes, rng: random.Random) -> bytes:
    """Another size of the index, in the footer."""
    at = len(data) - _STREAM_HEADER
    value = struct.pack("<I", rng.choice((0, 1, 2**16, 2**32 - 1)))
    body = value + data[at + 8 : at + 10]
    return data[:at] + struct.pack("<I", zlib.crc32(body)) + body + data[at + 10 :]


def _two_streams(data: bytes, rng: random.Random) -> bytes:
    """What xz allows behind a stream: padding, or another stream."""
    return data + rng.choice((bytes(4), bytes(4096), data, lzma.compress(bytes(1 << 20), preset=0)))


def _other_form(data: bytes, rng: random.Random) -> bytes:
    """The same archive or a part of it in another container of lzma's."""
    tar = lzma.decompress(data)[: rng.choice((None, -1, -_BLOCK, -2 * _BLOCK))]
    return lzma.compress(tar, format=lzma.FORMAT_ALONE, preset=0)


def _tar_header(data: bytes, rng: random.Random) -> bytes:
    """One field of one member: name, mode, owner, size, time, type or link."""
    members = list(_members(data))
    index = rng.randrange(len(members))
    entry = tarfile.TarInfo.frombuf(members[index][0], "utf-8", "strict")
    changes = {
        "name": rng.choice(_NAMES),
        "mode": rng.choice((0, 0o4777, 0o600)),
        "uid": 1,
        "size": rng.choice((entry.size + 1, max(0, entry.size - 1), *_SIZES)),
        "mtime": rng.choice((1, 2**31)),
        "type": rng.choice(_TYPES),
        "linkname": "/etc/passwd",
        "uname": "root",
    }
    field = rng.choice(list(changes))
    setattr(entry, field, changes[field])
    members[index] = entry.tobuf(tarfile.USTAR_FORMAT), members[index][1]
    return _packed(members)


def _link(data: bytes, rng: random.Random) -> bytes:
    """A link in front of a member, of the same name or one that the member lies behind."""
    members = list(_members(data))
    entry = tarfile.TarInfo(rng.choice(("artifacts", "golden", "manifest.json", "x")))
    entry.type, entry.linkname = rng.choice(_TYPES[:2]), rng.choice(("/tmp", "..", "/etc/passwd"))
    members.insert(rng.randint(0, len(members)), (entry.tobuf(tarfile.USTAR_FORMAT), b""))
    return _packed(members)


def _member_content(data: bytes, rng: random.Random) -> bytes:
    """One bit of a file, its padding or the archive's end."""
    members = list(_members(data))
    index = rng.randrange(len(members))
    header, body = members[index]
    if not body:
        return _packed(members, b"\1" + bytes(2 * _BLOCK - 1))
    at = rng.choice((rng.randrange(len(body)), len(body) - 1))
    members[index] = header, body[:at] + bytes((body[at] ^ 1 << rng.randrange(8),)) + body[at + 1 :]
    return _packed(members)


def _drop_member(data: bytes, rng: random.Random) -> bytes:
    members = list(_members(data))
    del members[rng.randrange(len(members))]
    return _packed(members)


def _move_member(data: bytes, rng: random.Random) -> bytes:
    """A member twice, or in another place."""
    members = list(_members(data))
    member = rng.choice(members) if rng.random() < 0.5 else members.pop(rng.randrange(len(members)))
    members.insert(rng.randint(0, len(members)), member)
    if members == list(_members(data)):
        return data
    return _packed(members)


def _archive_end(data: bytes, rng: random.Random) -> bytes:
    return _packed(list(_members(data)), rng.choice((b"", bytes(_BLOCK), bytes(20 * _BLOCK), b"x" * 2 * _BLOCK)))


MUTATORS = (
    *(_stream_flags, _block_header, _index_size, _two_streams, _other_form),
    *(_tar_header, _tar_header, _link, _member_content, _drop_member, _move_member, _archive_end),
)
