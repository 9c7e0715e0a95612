"""Field mutations of JSON with a digest (manifest and signature): every leaf, key and container may become another.

Half of the results get the digest they must then have, as an attacker would see to; the signature is what stops those.
"""

from __future__ import annotations

import json
import random
from typing import Any

from edgeseg.manifest import seal

_EXTREMES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 10**400, 0.5, 1e308, "", "0", "../../etc/passwd", "/dev/zero"),
    *("A" * 10_000, "\u0000", "\U0001f600", [], {}, [[]], {"": None}),
)
_DEEP = 100_000


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every value of a tree as (container, key or index)."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [place for key in keys for place in ((node, key), *_places(node[key]))]


def _parsed(data: bytes, rng: random.Random) -> tuple[dict[str, Any], Any, Any]:
    """The content, and one of its places."""
    content = json.loads(data)
    container, key = rng.choice(_places(content))
    return content, container, key


def _written(content: dict[str, Any], rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        try:
            return seal(content)
        except (ValueError, TypeError, OverflowError):
            pass  # what has no canonical form has no digest
    return json.dumps(content, indent=2, sort_keys=True).encode()


def _value(data: bytes, rng: random.Random) -> bytes:
    content, container, key = _parsed(data, rng)
    container[key] = rng.choice(_EXTREMES)
    return _written(content, rng)


def _near(data: bytes, rng: random.Random) -> bytes:
    """Nearly the same value: the next number, another letter, the same as text."""
    content, container, key = _parsed(data, rng)
    old = container[key]
    if isinstance(old, int | float):
        container[key] = rng.choice((old + 1, old - 1, -old, old * 1.0000001, str(old), [old]))
    elif isinstance(old, str):
        container[key] = rng.choice((old + "x", old[:-1], old.upper(), old[::-1], [old], old + " "))
    else:
        container[key] = rng.choice((json.dumps(old), [old]))
    return _written(content, rng)


def _drop(data: bytes, rng: random.Random) -> bytes:
    content, container, key = _parsed(data, rng)
    del container[key]
    return _written(content, rng)


def _rename(data: bytes, rng: random.Random) -> bytes:
    content, container, key = _parsed(data, rng)
    if isinstance(container, list):
        container.insert(0, container.pop(key))
    else:
        container[rng.choice((f"{key}x", key.upper(), "", key[:-1]))] = container.pop(key)
    return _written(content, rng)


def _add(data: bytes, rng: random.Random) -> bytes:
    content, container, key = _parsed(data, rng)
    if isinstance(container, list):
        container.insert(key, container[key])
    else:
        container[rng.choice(("extra", "digest", "schema", "files"))] = rng.choice(_EXTREMES)
    return _written(content, rng)


def _exchange(data: bytes, rng: random.Random) -> bytes:
    """A value in the place of another: the hash of another file, the size of another tensor."""
    content, container, key = _parsed(data, rng)
    other, other_key = rng.choice(_places(content))
    container[key] = json.loads(json.dumps(other[other_key]))
    return _written(content, rng)


def _duplicate_key(data: bytes, rng: random.Random) -> bytes:
    """A key twice in one object, which readers take for the first or the last; no digest can be told of that."""
    content = json.loads(data)
    key = rng.choice(list(content))
    text = json.dumps(content, indent=2, sort_keys=True)
    twin = json.dumps({key: rng.choice((*_EXTREMES, content[key]))})[1:-1]
    return (text.rstrip().removesuffix("}") + f", {twin}}}").encode()


def _deep(data: bytes, rng: random.Random) -> bytes:
    content, container, key = _parsed(data, rng)
    container[key] = "@"
    depth = rng.choice((100, _DEEP))
    return json.dumps(content, sort_keys=True).replace('"@"', "[" * depth + "]" * depth).encode()


def _number_form(data: bytes, rng: random.Random) -> bytes:
    """A number in other digits, a constant that is no JSON, or white space where there may be none."""
    new = rng.choice((b"1e1", b"01", b"1.0e+0", b"NaN", b"Infinity", b"-0", b"+1", b"0x10", b"1_0", b"1."))
    places = [i for i in range(len(data) - 1) if data[i : i + 2].isdigit() and data[i - 1 : i] == b" "]
    at = rng.choice(places) if places else 0
    return data[:at] + new + data[at + 2 :]


MUTATORS = (_value, _value, _near, _near, _drop, _rename, _add, _exchange, _duplicate_key, _deep, _number_form)
