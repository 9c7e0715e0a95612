"""All sides measured in one run: the same frames, the same preprocessing and metrics, the same engines, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeseg import metrics
from edgeseg.commands.bench import measure_latency
from edgeseg.commands.candidates import Candidate
from edgeseg.commands.measuring import hc_offset, score
from edgeseg.commands.rows import Row
from edgeseg.dataset import FrameFolder, read_folder, read_pair
from edgeseg.parity import nchw_runner
from edgeseg.types import Array, Preprocess, Session

_FRAMES = 16
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that takes part.

    Attributes:
        name: as in `hc18 openvino-int8` or `olive`.
        side: `source`, `edgeseg` or the peer's tool.
        runtime: the engine.
        path: what the engine is given; a .bin beside an .xml counts with it.
        preprocess: what comes before it.
        what: how it was made.
        default: False for a peer's recipe that is not its default.
    """

    name: str
    side: str
    runtime: str
    path: Path
    preprocess: Preprocess
    what: str
    default: bool = True

    @property
    def size_mb(self) -> float:
        """All files, 10^6 bytes."""
        files = {self.path, self.path.with_suffix(".bin")} if self.path.suffix == ".xml" else {self.path}
        return sum(file.stat().st_size for file in files) / 1e6


@dataclass(slots=True)
class Result:
    """What was measured of one entry. What was not measured is None, never 0.

    `frame_dice` and `frame_hc_mm` are frame by frame, in the order of `frames` of the report, so that every mean and
    interval can be computed again. `agreement` and `sqnr_db` are against the fp32 source; the latter is None where the
    logits have another size.
    """

    name: str
    side: str
    runtime: str
    what: str
    default: bool
    size_mb: float
    p10_ms: float | None = None
    p50_ms: float | None = None
    dice: float | None = None
    dice_ci: tuple[float, float] | None = None
    worst_dice: float | None = None
    worst_frame: str | None = None
    hc_mae_mm: float | None = None
    hc_mae_ci: tuple[float, float] | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    precision: str | None = None
    int8_layers: int | None = None
    layers: int | None = None
    frame_dice: list[float] = field(default_factory=list)
    frame_hc_mm: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Distance:
    """Accumulates how far one entry is from the source."""

    agreements: list[float] = field(default_factory=list)
    signal: float = 0.0
    noise: float | None = 0.0

    def add(self, expected: Array, logits: Array) -> None:
        """Take in the logits of a frame; those of another size have no distance."""
        if self.noise is None or logits.shape != expected.shape:
            self.noise = None
            return
        self.signal += float(np.sum(expected.astype(np.float64) ** 2))
        self.noise += float(np.sum((expected.astype(np.float64) - logits) ** 2))


def candidate(entry: Entry, session: Session, threads: int) -> Candidate:
    """What bench measures, of an entry."""
    run = nchw_runner(session.run, session.inputs, session.outputs)
    row = Row(entry.path.suffix[1:], entry.side, entry.runtime, session.device, threads)
    return Candidate(row, run, entry.preprocess, session=session)


def measure(
    entries: Sequence[Entry],
    candidates: Sequence[Candidate],
    folder: FrameFolder,
    classes: int,
    rounds: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Accuracy on every frame of the folder, then the latency of all in turns.

    Args:
        entries: the first is the source, which the others are held against.
        candidates: the same, loaded.
        folder: held frames with masks.
        classes: of the masks.
        rounds: turns of each candidate in the timing.
        advance: called after each frame.
    """
    distances = [Distance() for _ in entries]
    offset = hc_offset(read_folder(folder.path), classes)
    for sample in folder.samples:
        frame, truth = read_pair(sample, classes)
        expected, mask = candidates[0].segment(frame)
        expected = expected.copy()  # the engine may overwrite it
        for one, distance in zip(candidates, distances, strict=True):
            logits, found = one.segment(frame)
            distance.add(expected, logits)
            distance.agreements.append(metrics.agreement(found, mask))
            one.scores.append(score(found, truth, sample, offset))
        advance()
    measure_latency(candidates, [s.read_frame() for s in folder.spread(_FRAMES).samples], rounds, _REPEATS)
    return [_result(*each, folder) for each in zip(entries, candidates, distances, strict=True)]


def _result(entry: Entry, measured: Candidate, distance: Distance, folder: FrameFolder) -> Result:
    result = Result(entry.name, entry.side, entry.runtime, entry.what, entry.default, entry.size_mb)
    result.p10_ms, result.p50_ms = (float(v) * 1e3 for v in np.percentile(measured.seconds, (10, 50)))
    dice = [(s.dice, s.exam) for s in measured.scores if s.dice is not None]
    errors = [(s.hc_error_mm, s.exam) for s in measured.scores if s.hc_error_mm is not None]
    if dice:
        values, exams = zip(*dice, strict=True)
        result.dice, result.dice_ci = float(np.mean(values)), metrics.bootstrap_interval(values, exams)
        worst = int(np.argmin(values))
        result.worst_dice, result.worst_frame = values[worst], folder.samples[worst].name
        result.frame_dice = list(values)
    if errors:
        values, exams = zip(*errors, strict=True)
        result.hc_mae_mm, result.hc_mae_ci = float(np.mean(values)), metrics.bootstrap_interval(values, exams)
        result.frame_hc_mm = list(values)
    result.agreement = float(np.mean(distance.agreements))
    if distance.noise:  # the source has no distance from itself
        result.sqnr_db = metrics.ratio_db(distance.signal, distance.noise)
    if measured.session is not None:
        executed = measured.session.execution()
        result.precision, result.int8_layers, result.layers = executed.precision, executed.int8_layers, executed.layers
    return result
