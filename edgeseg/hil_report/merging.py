"""Several records as one comparison: which board is which, which bundle is which, and what is the newest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edgeseg import __version__
from edgeseg.boards.hil.station import RECORD
from edgeseg.errors import BadInput
from edgeseg.hil_report.caveats import caveats
from edgeseg.hil_report.comparison import Board, BundleSeen, Comparison, Incident, Result
from edgeseg.hil_report.events import RunBundle
from edgeseg.hil_report.record import BoardRun, RunRead, read_run, result_of

# A name in records, and what tells two things of that name apart.
Key = tuple[str, str]
_SHORT = 12
_NEVER = "never answered"


def compare(paths: Sequence[Path]) -> Comparison:
    """Read records and compare what is in them.

    Args:
        paths: of records, or of folders: theirs, or all that are below them.

    Raises BadInput where there is none, where one is none, damaged or of a later schema, or where no bundle came to an
    end in any of them.
    """
    read = sorted((read_run(path) for path in find_records(paths)), key=lambda run: (run.file.at, run.events))
    # Of copies of one record the one that goes furthest counts.
    runs = list({run.file.run: run for run in read}.values())
    if not any(run.finished for run in runs):
        listed = ", ".join(run.file.path for run in runs)
        raise BadInput(
            f"no bundle came to an end in {listed}: there is nothing to compare, go on with it "
            "(edgeseg hil run --resume)"
        )
    boards = _Boards(runs)
    bundles = _Bundles(runs)
    results = sorted(_results(runs, boards, bundles), key=lambda r: r.at, reverse=True)
    newest, history = _newest(results)
    described = tuple(boards.described()), tuple(bundles.described())
    order = [[part.label for part in parts] for parts in described]
    newest.sort(key=lambda r: (order[0].index(r.board), order[1].index(r.bundle)))
    comparison = Comparison(
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        edgeseg=__version__,
        records=tuple(run.file for run in runs),
        boards=described[0],
        bundles=described[1],
        results=tuple(newest),
        history=tuple(history),
        incidents=tuple(sorted(_incidents(runs, boards), key=lambda incident: incident.at)),
    )
    return msgspec.structs.replace(comparison, caveats=tuple(caveats(comparison)))


def find_records(paths: Iterable[Path]) -> list[Path]:
    """The records themselves, each once. Raises BadInput for a folder that has none."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = [path / RECORD] if (path / RECORD).exists() else sorted(path.rglob(RECORD))
        if not inside:
            raise BadInput(f"{path} has no {RECORD}, expected a folder that `edgeseg hil run` wrote, or one of several")
        for record in inside:
            found.setdefault(record.resolve(), record)
    return list(found.values())


class _Boards:
    """Boards of all runs: a machine under a name. One that never answered is the one machine of its name, if one is."""

    def __init__(self, runs: Sequence[RunRead]) -> None:
        self._runs: dict[Key, list[BoardRun]] = defaultdict(list)
        machines: dict[str, dict[str, None]] = defaultdict(dict)
        for run in runs:
            for board in run.boards.values():
                machines[board.name].update({board.machine: None} if board.machine else {})
        self._only = {name: next(iter(found)) for name, found in machines.items() if len(found) == 1}
        for run in runs:
            for board in run.boards.values():
                self._runs[self._key(board)].append(board)
        self._labels = _labels(self._runs)

    def label(self, board: BoardRun) -> str:
        return self._labels[self._key(board)]

    def described(self) -> Iterator[Board]:
        for key, runs in self._runs.items():
            told = [run for run in runs if run.facts]
            newest = told[-1] if told else runs[-1]
            yield Board(
                label=self._labels[key],
                name=key[0],
                machine=key[1],
                transport=newest.entry.transport if newest.entry else "",
                where=newest.where,
                seen=newest.seen,
                emulated=newest.facts.emulation if newest.facts else "",
                facts=newest.facts,
            )

    def _key(self, board: BoardRun) -> Key:
        return board.name, board.machine or self._only.get(board.name, "")


class _Bundles:
    """Bundles of all runs: one manifest and one set of files under a name."""

    def __init__(self, runs: Sequence[RunRead]) -> None:
        self._seen: dict[Key, RunBundle] = {}
        for bundle in (bundle for run in runs for bundle in run.bundles.values()):
            known = self._seen.get(key := _bundle_key(bundle))
            self._seen[key] = bundle if known is None or known.key_ids is None else known
        self._labels = _labels(self._seen)

    def label(self, bundle: RunBundle) -> str:
        return self._labels[_bundle_key(bundle)]

    def described(self) -> Iterator[BundleSeen]:
        for key, bundle in self._seen.items():
            yield BundleSeen(
                label=self._labels[key],
                name=bundle.name,
                digest=bundle.digest,
                files=bundle.files,
                key_ids=bundle.key_ids,
            )


def _bundle_key(bundle: RunBundle) -> Key:
    """Digest first: it is what a label is told apart by. The files are part of it, so that only like is compared."""
    return bundle.name, " ".join([bundle.digest, *(f"{path}={sha}" for path, sha in sorted(bundle.files.items()))])


def _labels(keys: Iterable[Key]) -> dict[Key, str]:
    """The name alone where it is the only one, else with the beginning of what tells it apart."""
    keys = list(keys)
    labels: dict[Key, str] = {}
    for key in keys:
        name, apart = key
        alone = sum(other[0] == name for other in keys) == 1
        label = name if alone else f"{name} ({apart[:_SHORT] or _NEVER})"
        taken = sum(label in (other, other.rsplit(" #", 1)[0]) for other in labels.values())
        labels[key] = f"{label} #{taken + 1}" if taken else label
    return labels


def _results(runs: Sequence[RunRead], boards: _Boards, bundles: _Bundles) -> Iterator[Result]:
    for run in runs:
        for board in run.boards.values():
            for digest, tried in board.tried.items():
                if digest not in run.bundles:
                    raise BadInput(f"{run.file.path} is damaged: nothing names the bundle {digest[:_SHORT]!r}")
                labels = boards.label(board), bundles.label(run.bundles[digest])
                yield from (result_of(run, board, one, labels) for one in tried)


def _newest(results: Iterable[Result]) -> tuple[list[Result], list[Result]]:
    """The newest of each bundle on each board, and the others, of results of which the newest is first."""
    found: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        found[result.board, result.bundle].append(result)
    return [first for first, *_ in found.values()], [old for _, *others in found.values() for old in others]


def _incidents(runs: Sequence[RunRead], boards: _Boards) -> Iterator[Incident]:
    for run in runs:
        for incident in run.incidents:
            yield msgspec.structs.replace(incident, board=boards.label(run.boards[incident.board]))
