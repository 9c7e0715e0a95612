"""Field mutations of FlatBuffers (TFLite): scalars, offsets, vector lengths and vtables, found without a schema.

A buffer does not say what its fields are, so tables are recognised by their vtables and vectors by lengths that fit.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import lru_cache

_LARGEST_VTABLE, _MOST_TABLES = 256, 20_000
_NUMBERS = (0, 1, 2, 3, 4, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a buffer has its structure, as positions in it.

    Attributes:
        tables: tables' own offsets to their vtables (4 bytes).
        entries: entries of vtables (2 bytes).
        scalars: fields in tables (4 bytes, which may cover several small ones).
        offsets: fields that lead to a table, vector or string (4 bytes).
        lengths: of vectors and strings (4 bytes).
    """

    tables: tuple[int, ...]
    entries: tuple[int, ...]
    scalars: tuple[int, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]


@lru_cache(maxsize=4)
def places(data: bytes) -> Places:
    """What can be found from the root table on."""
    tables: dict[int, None] = {}
    entries: dict[int, None] = {}
    found: dict[str, dict[int, None]] = {"scalars": {}, "offsets": {0: None}, "lengths": {}}
    waiting = [_u32(data, 0)]
    while waiting and len(tables) < _MOST_TABLES:
        table = waiting.pop()
        fields = _vtable(data, table)
        if table in tables or fields is None:
            continue
        tables[table] = None
        vtable = table - _i32(data, table)
        for index, field in enumerate(fields):
            entries[vtable + 4 + 2 * index] = None
            if field:
                waiting += _follow(data, table + field, found)
    return Places(tuple(tables), tuple(entries), *(tuple(found[k]) for k in ("scalars", "offsets", "lengths")))


def _follow(data: bytes, at: int, found: dict[str, dict[int, None]]) -> list[int]:
    """Note what a field is; positions that may be tables."""
    if at + 4 > len(data):
        return []
    target = at + _u32(data, at)
    if target == at or target + 4 > len(data):
        found["scalars"][at] = None
        return []
    if _vtable(data, target) is not None:
        found["offsets"][at] = None
        return [target]
    length = _u32(data, target)
    if not 0 < length <= len(data) - target - 4:
        found["scalars"][at] = None
        return []
    found["offsets"][at] = found["lengths"][target] = None
    elements = range(target + 4, min(target + 4 + 4 * length, len(data) - 3), 4)
    return [e + _u32(data, e) for e in elements if _vtable(data, e + _u32(data, e)) is not None]


def _vtable(data: bytes, table: int) -> tuple[int, ...] | None:
    """The offsets of a table's fields (0 where absent); None where there is no table."""
    if not 4 <= table <= len(data) - 4:
        return None
    vtable = table - _i32(data, table)
    if not 0 <= vtable <= len(data) - 4 or vtable == table:
        return None
    size, inline = struct.unpack_from("<HH", data, vtable)
    if size < 4 or size % 2 or size > _LARGEST_VTABLE or inline < 4 or max(vtable + size, table + inline) > len(data):
        return None
    fields = struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)
    return fields if all(f == 0 or 4 <= f < inline for f in fields) else None


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _i32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little", signed=True)


def _changed(data: bytes, positions: tuple[int, ...], size: int, rng: random.Random) -> bytes:
    """An extreme number, a near one, or one from elsewhere of the same kind at one of these positions."""
    if not positions:
        return data
    at, other = rng.choice(positions), rng.choice(positions)
    old = int.from_bytes(data[at : at + size], "little")
    elsewhere = int.from_bytes(data[other : other + size], "little")
    value = rng.choice((rng.choice(_NUMBERS), old + 1, old - 1, old + 4, 2 * old, -old, elsewhere))
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, "little") + data[at + size :]


def _scalar(data: bytes, rng: random.Random) -> bytes:
    return _changed(data, places(data).scalars, rng.choice((1, 4)), rng)


def _offset(data: bytes, rng: random.Random) -> bytes:
    return _changed(data, places(data).offsets, 4, rng)


def _length(data: bytes, rng: random.Random) -> bytes:
    return _changed(data, places(data).lengths, 4, rng)


def _element(data: bytes, rng: random.Random) -> bytes:
    """A number in a vector: an index of a tensor, a dimension, the offset of a table."""
    lengths = places(data).lengths
    if not lengths:
        return data
    at = rng.choice(lengths)
    count = max(1, min(_u32(data, at), 64))
    return _changed(data, tuple(p for p in range(at + 4, at + 4 + 4 * count, 4) if p + 4 <= len(data)), 4, rng)


def _vtable_entry(data: bytes, rng: random.Random) -> bytes:
    return _changed(data, places(data).entries, 2, rng)


def _table(data: bytes, rng: random.Random) -> bytes:
    """Another vtable for a table."""
    return _changed(data, places(data).tables, 4, rng)


MUTATORS = (_scalar, _scalar, _offset, _length, _element, _element, _vtable_entry, _table)
