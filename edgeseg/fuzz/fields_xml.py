"""Field mutations of XML (OpenVINO's IR) that keep it well formed: attributes, texts, elements."""

from __future__ import annotations

import random
import re
from functools import lru_cache

_ATTRIBUTE = re.compile(rb'\s([A-Za-z_:][\w:.-]*)="([^"<]*)"')
_TEXT = re.compile(rb">([^<>\s][^<>]*)<")
_LEAF = re.compile(rb"<(\w+)(?:\s[^<>]*)?(?:/>|>[^<>]*</\1>)")
_LAYER = re.compile(rb"<layer\s.*?</layer>", re.DOTALL)
_VALUES = (
    *(b"", b"0", b"1", b"-1", b"-2", b"65536", b"2147483647", b"2147483648", b"4294967296", b"9223372036854775807"),
    *(b"-9223372036854775808", b"18446744073709551616", b"1e308", b"nan", b"inf", b"0,0,0,0", b"1,-1,1,1"),
    *(b"f16", b"i4", b"string", b"boolean", b"dynamic", b"Loop", b"If", b"Const", b"Result", b"Parameter"),
    *(b"../../../../etc/passwd", b"&lt;&amp;&#0;", b"A" * 4096),
)


@lru_cache(maxsize=16)
def _spans(pattern: re.Pattern[bytes], data: bytes, group: int) -> tuple[tuple[int, int], ...]:
    return tuple(m.span(group) for m in pattern.finditer(data))


def _pick(pattern: re.Pattern[bytes], data: bytes, rng: random.Random, group: int = 0) -> tuple[int, int]:
    spans = _spans(pattern, data, group)
    return rng.choice(spans) if spans else (0, 0)


def _value(pattern: re.Pattern[bytes], group: int, data: bytes, rng: random.Random) -> bytes:
    """One of the file's own values or an extreme one in the place of a value."""
    start, end = _pick(pattern, data, rng, group)
    other = slice(*_pick(pattern, data, rng, group))
    new = rng.choice((rng.choice(_VALUES), data[other])) if end else b""
    return data[:start] + new + data[end:]


def _attribute(data: bytes, rng: random.Random) -> bytes:
    return _value(_ATTRIBUTE, 2, data, rng)


def _attribute_name(data: bytes, rng: random.Random) -> bytes:
    return _value(_ATTRIBUTE, 1, data, rng)


def _text(data: bytes, rng: random.Random) -> bytes:
    return _value(_TEXT, 1, data, rng)


def _drop_attribute(data: bytes, rng: random.Random) -> bytes:
    start, end = _pick(_ATTRIBUTE, data, rng)
    return data[:start] + data[end:]


def _drop_element(data: bytes, rng: random.Random) -> bytes:
    start, end = _pick(rng.choice((_LEAF, _LAYER)), data, rng)
    return data[:start] + data[end:]


def _duplicate_element(data: bytes, rng: random.Random) -> bytes:
    start, end = _pick(rng.choice((_LEAF, _LAYER)), data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 100)) + data[end:]


def _exchange_elements(data: bytes, rng: random.Random) -> bytes:
    pattern = rng.choice((_LEAF, _LAYER))
    start, end = _pick(pattern, data, rng)
    other = slice(*_pick(pattern, data, rng))
    return data[:start] + data[other] + data[end:]


def _nest_element(data: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((10, 1000, 20_000))
    start, end = _pick(_LEAF, data, rng)
    return data[:start] + b"<layer>" * depth + data[start:end] + b"</layer>" * depth + data[end:]


MUTATORS = (
    *(_attribute, _attribute, _text, _attribute_name, _drop_attribute),
    *(_drop_element, _duplicate_element, _exchange_elements, _nest_element),
)
