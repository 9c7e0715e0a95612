"""Mutations and flipped bits with all checks on: each must be refused before any parser is given a byte."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from edgeseg.bundle import open_bundle
from edgeseg.errors import BundleError
from edgeseg.fuzz.mutations import Kind, flip, mutation
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.tripwires import Tripped, tripwires
from edgeseg.fuzz.workbench import Workbench
from edgeseg.runtimes.segmenter import load
from edgeseg.transport import extract

_JSON = (Kind.MANIFEST, Kind.SIGNATURE)
_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Change:
    """A file of the bundle with another content. `what` names the change so that it can be made again."""

    kind: Kind
    file: Path
    original: bytes
    data: bytes
    what: str


def mutations(bench: Workbench, kind: Kind, count: int, seed: int) -> Iterator[Change]:
    """The first `count` mutations of the files of one kind, which take turns."""
    contents = [(file, file.read_bytes()) for file in bench.files[kind]]
    for index in range(count):
        file, original = contents[index % len(contents)]
        made = mutation(kind, original, seed, index)
        yield Change(kind, file, original, made.data, f"{file.name}, seed {seed}, mutation {index} ({made.what})")


def bit_flips(bench: Workbench, packed: bool, count: int, seed: int) -> Iterator[Change]:
    """Single flipped bits: of the one-file form anywhere; of the folder in files by their size.

    A quarter of the folder's are in the manifest and a quarter in the signature, which are small.
    """
    rng = random.Random(f"{seed} bits {packed}")
    listed = [(kind, f) for kind, files in bench.files.items() if (kind is Kind.TRANSPORT) == packed for f in files]
    contents = {file: file.read_bytes() for _, file in listed}
    papers = [(kind, file) for kind, file in listed if kind in _JSON]
    weights = [len(contents[file]) for _, file in listed]
    for index in range(count):
        share = index % 4
        kind, file = papers[share] if share < len(papers) else rng.choices(listed, weights)[0]
        original = contents[file]
        bit = rng.randrange(8 * len(original))
        yield Change(kind, file, original, flip(original, bit), f"{file.name}, bit {bit}")


def try_changes(
    bench: Workbench, changes: Iterator[Change], outcomes: Outcomes, advance: Callable[[], None]
) -> Outcomes:
    """Open the bundle with each change and load it: `refused` is what must come of it.

    A change that leaves the content equal (a manifest's white space, an archive that unpacks to the same bytes) may be
    accepted; those are counted as `equal`. Everything else that is not refused by a BundleError is a miss.
    """
    with tripwires() as reached:
        for change in changes:
            outcome, seconds, error = _try(bench, change, reached)
            miss = None if outcome in ("refused", "equal") else f"{change.what}: {outcome} {error}".rstrip()
            outcomes.add(outcome, seconds, miss)
            advance()
    outcomes.notes["parsers reached"] = sum(reached.values())
    return outcomes


def _try(bench: Workbench, change: Change, reached: Counter[str]) -> tuple[str, float, str]:
    target = change.file if change.kind is Kind.TRANSPORT else bench.bundle.path
    before = reached.copy()
    _write(change.file, change.data)
    start = perf_counter()
    try:
        load(open_bundle(target, trusted_keys=list(bench.keys)), threads=1).close()
        outcome, error = "accepted", ""
    except BundleError as refusal:
        outcome, error = ("refused", "") if reached == before else ("parsed", str(refusal)[:_SHOWN])
    except Tripped as trip:
        outcome, error = "parsed", str(trip)
    except Exception as untyped:
        outcome, error = "untyped", f"{type(untyped).__name__}: {untyped}"[:_SHOWN]
    seconds = perf_counter() - start
    if outcome in ("parsed", "accepted") and _equal(change):
        outcome = "equal"
        reached.subtract(reached - before)
    _write(change.file, change.original)
    return outcome, seconds, error


_clock = iter(range(1, 1 << 62))


def _write(file: Path, data: bytes) -> None:
    """Overwrite a file; each time with another time stamp, by which a changed one-file form is known."""
    file.write_bytes(data)
    stamp = 1_000_000_000 * next(_clock)
    os.utime(file, ns=(stamp, stamp))


def _equal(change: Change) -> bool:
    """Whether the change left the content what it was, told without the code under test where that is possible."""
    if change.kind in _JSON:
        try:
            return _same(json.loads(change.data), json.loads(change.original))
        except ValueError:
            return False
    if change.kind is not Kind.TRANSPORT:
        return False
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        trees = []
        for part, data in (("a", change.data), ("b", change.original)):
            (root / part).mkdir()
            (root / f"{part}.xz").write_bytes(data)
            extract(root / f"{part}.xz", root / part, None)
            trees.append({p.relative_to(root / part): p.read_bytes() for p in (root / part).rglob("*") if p.is_file()})
        return trees[0] == trees[1]


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON, in which true is not 1 but 1.0 is."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
