"""All parts of the harness over one bundle: what is run, how often, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeseg.errors import BadInput
from edgeseg.fuzz import engines, hangs, hostile, kills, readers, refusals
from edgeseg.fuzz.cases import CASES
from edgeseg.fuzz.corpus import Case
from edgeseg.fuzz.mutations import Kind
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.workbench import Workbench

Job = tuple[str, int, Callable[[Callable[[], None]], list[Outcomes]]]


class Part(StrEnum):
    """The parts of the harness."""

    MUTATIONS = "mutations"
    ENGINES = "engines"
    BITS = "bits"
    HANGS = "hangs"
    CORPUS = "corpus"
    KILLS = "kills"


@dataclass(frozen=True, slots=True)
class Counts:
    """Trials of each part: mutations and engines for each kind of file, bits for each form, kills for each operation.

    `cases` is every how manyeth case of the corpus is tried.
    """

    mutations: int = 200
    engines: int = 50
    bits: int = 500
    hangs: int = 1
    cases: int = 10
    kills: int = 20

    def only(self, count: int) -> Counts:
        """The same number of trials for all that are counted."""
        return Counts(count, count, count, count, self.cases, count)


FULL = Counts(mutations=10_000, engines=2_000, bits=10_000, hangs=10, cases=1, kills=334)


def jobs(
    bench: Workbench, parts: Sequence[Part], counts: Counts, seed: int, *, only: str = "", folder: Path | None = None
) -> Iterator[Job]:
    """What is to be done: a name, the number of trials, and a function that does it.

    Args:
        bench: the bundle.
        parts: which parts; all of them where there is none.
        counts: how often.
        seed: of everything random.
        only: kinds of files, operations and cases that have this in their name.
        folder: where writers are killed, on the file system to try it on.

    Raises:
        BadInput: nothing has `only` in its name.
    """
    makers = {
        Part.MUTATIONS: lambda: _mutations(bench, counts.mutations, seed),
        Part.ENGINES: lambda: _engines(bench, counts.engines, seed),
        Part.BITS: lambda: _bits(bench, counts.bits, seed),
        Part.HANGS: lambda: _hangs(counts.hangs),
        Part.CORPUS: lambda: _corpus(bench, _chosen(counts.cases, only)),
        Part.KILLS: lambda: _kills(bench, counts.kills, seed, folder),
    }
    found = False
    for part in parts or tuple(Part):
        for job in makers[part]():
            if part is Part.CORPUS or only in job[0]:
                found = True
                yield job
    if not found:
        raise BadInput(f"nothing to do has {only!r} in its name, see docs/fuzzing.md for the names")


def _mutations(bench: Workbench, count: int, seed: int) -> Iterator[Job]:
    for kind in bench.files:

        def run(advance: Callable[[], None], kind: Kind = kind) -> list[Outcomes]:
            changes = refusals.mutations(bench, kind, count, seed)
            return [refusals.try_changes(bench, changes, Outcomes("mutations", kind), advance)]

        yield f"mutations of {kind}", count, run


def _engines(bench: Workbench, count: int, seed: int) -> Iterator[Job]:
    for kind in engines.available(bench):

        def run(advance: Callable[[], None], kind: Kind = kind) -> list[Outcomes]:
            return [engines.try_engine(bench, kind, count, seed, advance)]

        yield f"unchecked {kind}", count, run
    for kind in (k for k in readers.KINDS if k in bench.files):

        def read(advance: Callable[[], None], kind: Kind = kind) -> list[Outcomes]:
            return [readers.try_reader(bench, kind, count, seed, advance)]

        yield f"unchecked {kind}", count, read


def _bits(bench: Workbench, count: int, seed: int) -> Iterator[Job]:
    for packed, what in ((False, "folder"), (True, "one file")):

        def run(advance: Callable[[], None], packed: bool = packed, what: str = what) -> list[Outcomes]:
            flips = refusals.bit_flips(bench, packed, count, seed)
            return [refusals.try_changes(bench, flips, Outcomes("bits", what), advance)]

        yield f"bits of the {what}", count, run


def _hangs(count: int) -> Iterator[Job]:
    yield "endless models", count, lambda advance: [hangs.try_hangs(count, advance)]


def _corpus(bench: Workbench, cases: Sequence[Case]) -> Iterator[Job]:
    if cases:
        yield "hostile files", len(cases), lambda advance: hostile.try_corpus(bench, cases, advance)


def _chosen(every: int, only: str) -> tuple[Case, ...]:
    """The cases with `only` in their name; without it every so many of them."""
    named = tuple(case for case in CASES if only in case.name)
    return named if only else named[::every]


def _kills(bench: Workbench, count: int, seed: int, folder: Path | None) -> Iterator[Job]:
    for operation in kills.KINDS:

        def run(advance: Callable[[], None], operation: str = operation) -> list[Outcomes]:
            return [kills.kill_writers(bench.bundle, operation, count, seed, folder, advance)]

        yield f"kills during {operation}", count, run
