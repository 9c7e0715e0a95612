"""Field mutations of protobuf (ONNX), by its wire format alone: no schema and no onnx package is needed.

A change of a field's length is carried into the lengths of all messages around it, so that the file stays well formed.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import lru_cache

from edgeseg.runtimes.protobuf import BYTES, FIXED32, FIXED64, LONGEST_VARINT, VARINT, encode_field, encode_varint

_DEEPEST = 24
_EXTREMES = (0, 1, 2, 127, 128, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_FLOATS = (0.0, -1.0, float("inf"), float("nan"), 3.4e38, 1e-45)
_STRINGS = (b"", b"../../../../etc/passwd", b"/dev/zero", b"%s%n", b"\xff\xfe", bytes(64), b"A" * 4096, b"Loop", b"If")


@dataclass(frozen=True, slots=True)
class Field:
    """One field in a file.

    Attributes:
        start, payload, end: where its tag, its value and the next field begin.
        number, wire: from its tag.
        parents: of the messages around it, outermost first: where the length, the payload and what follows begin.
    """

    start: int
    payload: int
    end: int
    number: int
    wire: int
    parents: tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=4)
def fields(data: bytes) -> tuple[Field, ...]:
    """All fields of a message and of what can be read as messages in it."""
    return tuple(_walk(data, 0, len(data), ()) or ())


def _walk(data: bytes, start: int, end: int, parents: tuple[tuple[int, int, int], ...]) -> list[Field] | None:
    """The fields between two positions, None where this is no message."""
    found: list[Field] = []
    at = start
    while at < end:
        tag, length_at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if length_at < 0 or not 0 < number < 1 << 29:
            return None
        payload = length_at
        if wire == VARINT:
            after = _varint(data, payload, end)[1]
        elif wire in (FIXED64, FIXED32):
            after = payload + (8 if wire == FIXED64 else 4)
        elif wire == BYTES:
            size, payload = _varint(data, length_at, end)
            after = payload + size if payload >= 0 else -1
        else:
            return None
        if not 0 <= after <= end:
            return None
        found.append(Field(at, payload, after, number, wire, parents))
        if wire == BYTES and after - payload > 1 and len(parents) < _DEEPEST:
            found += _walk(data, payload, after, (*parents, (length_at, payload, after))) or ()
        at = after
    return found


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at a position and where it ends, -1 where there is none."""
    value = 0
    for index in range(min(LONGEST_VARINT, end - at)):
        byte = data[at + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    return 0, -1


def _replaced(data: bytes, field: Field, start: int, end: int, new: bytes) -> bytes:
    """Other bytes between two positions, and the lengths of all messages around them as they must then be."""
    for length_at, payload, after in reversed(field.parents):
        body = data[payload:start] + new + data[end:after]
        new, start, end = encode_varint(len(body)) + body, length_at, after
    return data[:start] + new + data[end:]


def _pick(data: bytes, rng: random.Random, *wires: int) -> Field | None:
    found = [f for f in fields(data) if not wires or f.wire in wires]
    return rng.choice(found) if found else None


def _number(data: bytes, rng: random.Random) -> bytes:
    field = _pick(data, rng, VARINT)
    if field is None:
        return data
    old = _varint(data, field.payload, field.end)[0]
    value = rng.choice((*_EXTREMES, old + 1, old - 1, old * 2, -old, rng.randrange(2**32)))
    return _replaced(data, field, field.payload, field.end, encode_varint(value))


def _float(data: bytes, rng: random.Random) -> bytes:
    field = _pick(data, rng, FIXED32, FIXED64)
    if field is None:
        return data
    value = struct.pack("<f" if field.wire == FIXED32 else "<d", rng.choice(_FLOATS))
    return _replaced(data, field, field.payload, field.end, value)


def _content(data: bytes, rng: random.Random) -> bytes:
    """Another string, array or message in the place of one."""
    field = _pick(data, rng, BYTES)
    if field is None:
        return data
    old = data[field.payload : field.end]
    others = (old[: len(old) // 2], old + old, old[::-1], old[:-1], rng.randbytes(len(old)))
    new = encode_field(field.number, BYTES, rng.choice((*_STRINGS, *others)))
    return _replaced(data, field, field.start, field.end, new)


def _drop(data: bytes, rng: random.Random) -> bytes:
    field = _pick(data, rng)
    return data if field is None else _replaced(data, field, field.start, field.end, b"")


def _duplicate(data: bytes, rng: random.Random) -> bytes:
    field = _pick(data, rng)
    return data if field is None else _replaced(data, field, field.end, field.end, data[field.start : field.end])


def _exchange(data: bytes, rng: random.Random) -> bytes:
    """A field in the place of another of the same number."""
    field = _pick(data, rng)
    if field is None:
        return data
    other = rng.choice([f for f in fields(data) if f.number == field.number])
    return _replaced(data, field, field.start, field.end, data[other.start : other.end])


def _other_number(data: bytes, rng: random.Random) -> bytes:
    field = _pick(data, rng)
    if field is None:
        return data
    new = encode_field(rng.randint(1, 24), field.wire, data[field.payload : field.end])
    return _replaced(data, field, field.start, field.end, new)


def _nest(data: bytes, rng: random.Random) -> bytes:
    """A message inside itself, many times."""
    field = _pick(data, rng, BYTES)
    if field is None:
        return data
    new = data[field.payload : field.end][:256]
    for _ in range(rng.choice((2, 20, 110, 1000))):
        new = encode_field(field.number, BYTES, new)
    return _replaced(data, field, field.start, field.end, new)


MUTATORS = (_number, _number, _float, _content, _drop, _duplicate, _exchange, _other_number, _nest)
