"""Writing protobuf's wire format (protobuf.dev/programming-guides/encoding), for the little ONNX written here."""

from __future__ import annotations

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10


def encode_varint(value: int) -> bytes:
    """A number of up to 64 bits; a negative one as its two's complement."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def encode_field(number: int, wire: int, value: bytes) -> bytes:
    """A field of a message; `value` as it stands behind the tag, for bytes without their length."""
    length = encode_varint(len(value)) if wire == BYTES else b""
    return encode_varint(number << 3 | wire) + length + value


def number_field(number: int, value: int) -> bytes:
    """An integer field."""
    return encode_field(number, VARINT, encode_varint(value))


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of bytes, text or an embedded message."""
    return encode_field(number, BYTES, value)
