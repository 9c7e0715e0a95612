"""One deterministic change to a file: to its bytes, or to a field of its format that leaves the rest well formed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from edgeseg.fuzz import fields_flatbuffer, fields_json, fields_media, fields_protobuf, fields_transport, fields_xml

_TRIES = 20
_LONGEST_INSERT, _LONGEST_CUT, _LONGEST_RUN = 16, 64, 256
_EXTREME_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)

Mutator = Callable[[bytes, random.Random], bytes]


class Kind(StrEnum):
    """The kinds of files that a bundle is made of."""

    ONNX = "onnx"
    XML = "xml"
    BIN = "bin"
    TFLITE = "tflite"
    MANIFEST = "manifest"
    PNG = "png"
    NPY = "npy"
    SIGNATURE = "signature"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A changed file.

    Attributes:
        what: the name of the change, as in "bytes: delete" or "fields: scalar".
        data: the content, different from the original.
    """

    what: str
    data: bytes


def mutation(kind: Kind, data: bytes, seed: int, index: int) -> Mutation:
    """Number `index` of the endless sequence of mutations of a file that `seed` stands for; half of them are of fields.

    Args:
        kind: decides which fields there are; raw weights (BIN) have none.
        data: the original, not empty.
        seed, index: the same two give the same mutation.
    """
    rng = random.Random(f"{seed} {kind} {index}")
    of_fields = FIELDS.get(kind, ())
    for _ in range(_TRIES):
        group, mutators = ("fields", of_fields) if of_fields and rng.random() < 0.5 else ("bytes", BYTES)
        mutator = rng.choice(mutators)
        changed = mutator(data, rng)
        if changed != data:
            return Mutation(f"{group}: {mutator.__name__.strip('_').replace('_', ' ')}", changed)
    return Mutation("bytes: flip bit", flip_bit(data, rng))


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    """One bit, anywhere."""
    return flip(data, rng.randrange(8 * len(data)))


def flip(data: bytes, bit: int) -> bytes:
    """The bit of this number, counted from the lowest one of the first byte."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _flip_some_bits(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(2, 16)):
        data = flip_bit(data, rng)
    return data


def _set_byte(data: bytes, rng: random.Random) -> bytes:
    value = rng.choice((*_EXTREME_BYTES, rng.randrange(256)))
    at = rng.randrange(len(data))
    return data[:at] + bytes((value,)) + data[at + 1 :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.randint(1, _LONGEST_INSERT)) + data[at:]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, _LONGEST_CUT) :]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((bytes(1), bytes(512), rng.randbytes(rng.randint(1, _LONGEST_INSERT)), data))


def _swap_blocks(data: bytes, rng: random.Random) -> bytes:
    size = rng.randint(1, max(1, min(_LONGEST_RUN, len(data) // 2)))
    first, second = sorted(rng.randrange(max(1, len(data) - size + 1)) for _ in range(2))
    if second < first + size:
        return data
    middle = data[first + size : second]
    return data[:first] + data[second : second + size] + middle + data[first : first + size] + data[second + size :]


def _repeat_block(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    block = data[at : at + rng.randint(1, _LONGEST_RUN)]
    return data[:at] + block + data[at:]


def _zero_run(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    size = min(rng.randint(1, _LONGEST_RUN), len(data) - at)
    return data[:at] + bytes(size) + data[at + size :]


BYTES: tuple[Mutator, ...] = (
    *(flip_bit, _flip_some_bits, _set_byte, _insert, _delete),
    *(_truncate, _append, _swap_blocks, _repeat_block, _zero_run),
)
FIELDS: dict[Kind, tuple[Mutator, ...]] = {
    Kind.ONNX: fields_protobuf.MUTATORS,
    Kind.XML: fields_xml.MUTATORS,
    Kind.TFLITE: fields_flatbuffer.MUTATORS,
    Kind.MANIFEST: fields_json.MUTATORS,
    Kind.SIGNATURE: fields_json.MUTATORS,
    Kind.PNG: fields_media.PNG_MUTATORS,
    Kind.NPY: fields_media.NPY_MUTATORS,
    Kind.TRANSPORT: fields_transport.MUTATORS,
}
