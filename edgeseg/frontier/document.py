"""What `frontier.json` holds: the raw samples of one measuring run, and every figure that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import msgspec

from edgeseg.errors import BadInput

SCHEMA = 1
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Limits:
    """The gates of a point, as differences from the reference; Dice as a fraction.

    Attributes:
        dice_drop: how much lower the mean Dice may be.
        hc_increase_mm: how much larger the mean error of the head circumference may be.
        worst_dice: no frame may have a lower Dice than this.
    """

    dice_drop: float = 0.005
    hc_increase_mm: float = 0.3
    worst_dice: float = 0.85


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """A frame that accuracy was measured on. `exam` is None where the folder has no exam ids."""

    file: str
    exam: str | None


@dataclass(frozen=True, slots=True)
class Data:
    """The frames: folder name, split, SHA-256 over names and contents, and the outline offset taken off each mask."""

    folder: str
    split: str
    sha256: str
    hc_offset_px: float
    frames: tuple[HeldFrame, ...]

    @property
    def exams(self) -> list[str] | None:
        """The exam of each frame; None where an exam is unknown or there is only one: then nothing can be drawn."""
        known = [f.exam for f in self.frames if f.exam is not None]
        return known if len(known) == len(self.frames) and len(set(known)) > 1 else None


@dataclass(frozen=True, slots=True)
class Samples:
    """What was measured of one point, nothing averaged.

    Attributes:
        dice: one a frame, in the order of the frames; None where the folder has no masks.
        hc_error_mm: absolute error of the head circumference, one a frame, None where a frame has no reference.
        run_ms: the engine alone, one a timed call.
        total_ms: frame in to mask out, one a turn.
    """

    dice: tuple[float, ...] | None
    hc_error_mm: tuple[float | None, ...]
    run_ms: tuple[float, ...]
    total_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One artifact on one runtime, or a source in torch. What was not measured is None, never 0.

    Attributes:
        name: `MODEL/ARTIFACT`, unique in a document.
        model: of which bundle or source.
        format, precision, runtime, device, threads: as in `bench --json`; None where a bundle has nothing to run.
        input: (height, width) of the network.
        size_mb: the files of the artifact, or the file of a source, 10^6 bytes.
        macs: multiply-accumulates of one frame.
        source: the model of the measured source whose network this is, shown by equal logits; None where there is none.
        state: "measured", "failed", or "absent" where the engine is merely not installed.
        reason: of a failure, or which limits a measured point does not keep.
        samples: None where nothing was measured.
        dice, hc_mae_mm, worst_dice, worst_file: means over the frames, and the frame with the lowest Dice.
        *_ci: 95 % bootstrap interval by exam.
        *_difference, *_difference_ci: from the reference, paired by frame.
        p50_ms, p90_ms, total_p50_ms: percentiles of the samples.
        speedup: how many times as fast as each baseline, by medians.
        dominated: whether another point is at least as good in latency, Dice, head circumference and worst frame and
            better in one of them, each rounded (latency and size to three digits, Dice to 0.01 points, circumference
            to 0.01 mm); `dominated_by` is the fastest that is. None where no accuracy was measured.
        dominated_in_size, dominated_in_size_by: the same with the size in place of the latency.
        passed: within all limits that could be measured on these frames; None where none could.
    """

    name: str
    model: str
    format: str | None = None
    precision: str | None = None
    runtime: str | None = None
    device: str | None = None
    threads: int | None = None
    input: tuple[int, int] | None = None
    size_mb: float | None = None
    macs: int | None = None
    source: str | None = None
    state: str = "measured"
    reason: str | None = None
    samples: Samples | None = None
    dice: float | None = None
    dice_ci: Interval | None = None
    dice_difference: float | None = None
    dice_difference_ci: Interval | None = None
    hc_mae_mm: float | None = None
    hc_mae_ci: Interval | None = None
    hc_difference_mm: float | None = None
    hc_difference_ci: Interval | None = None
    worst_dice: float | None = None
    worst_file: str | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    total_p50_ms: float | None = None
    speedup: Mapping[str, float | None] = field(default_factory=dict)
    dominated: bool | None = None
    dominated_by: str | None = None
    dominated_in_size: bool | None = None
    dominated_in_size_by: str | None = None
    passed: bool | None = None

    @property
    def is_source(self) -> bool:
        """Whether this is a source in torch, a baseline and nothing to ship."""
        return self.format == "torch"


@dataclass(frozen=True, slots=True)
class Frontier:
    """The content of frontier.json.

    Attributes:
        rows: the points in the order they were given.
        data: the frames.
        reference: name of the point that differences and limits start from.
        limits: the gates.
        baselines: names of the points that `speedup` compares with, by kind; None where there is no such point.
        best: the fastest point within all limits that is no source; None where there is none.
        machine, versions, command, created: where, with what, how and when (UTC, ISO 8601) it was measured.
        threads, rounds, repeats: how latency was measured.
        schema: of this document.
    """

    rows: tuple[Point, ...]
    data: Data
    reference: str
    limits: Limits = Limits()
    baselines: Mapping[str, str | None] = field(default_factory=dict)
    best: str | None = None
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    threads: int | None = None
    rounds: int = 0
    repeats: int = 0
    schema: int = SCHEMA

    def find(self, name: str) -> Point:
        """The point of that name. Raises BadInput where there is none."""
        for point in self.rows:
            if point.name == name:
                return point
        raise BadInput(f"there is no point {name!r}, expected one of {', '.join(p.name for p in self.rows)}")

    @property
    def by_latency(self) -> list[Point]:
        """All points, the fastest first, those without a latency last."""
        return sorted(self.rows, key=lambda p: math.inf if p.p50_ms is None else p.p50_ms)


class _Schema(msgspec.Struct):
    schema: int


def encode(frontier: Frontier) -> bytes:
    """The document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(frontier)) + b"\n"


def read(path: Path) -> Frontier:
    """Read a document.

    Raises:
        BadInput: where the file is no frontier.json, was written by a newer edgeseg, or has samples that do not fit.
    """
    data = path.read_bytes()
    try:
        found = msgspec.json.decode(data, type=_Schema).schema
        if found > SCHEMA:
            raise BadInput(f"{path} has schema {found}, this edgeseg reads up to {SCHEMA}: upgrade edgeseg")
        frontier = msgspec.json.decode(data, type=Frontier)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a frontier.json of edgeseg frontier: {error}") from error
    shapes = {_known(p.samples) for p in frontier.rows if p.samples}
    if len(shapes) > 1 or any(len(known) != len(frontier.data.frames) for known in shapes):
        raise BadInput(f"{path} has samples that do not fit its frames: it is damaged, measure again")
    for samples in (p.samples for p in frontier.rows if p.samples):
        if not samples.run_ms or not samples.total_ms or min(samples.run_ms) <= 0:
            raise BadInput(f"{path} has no latency samples, or some that are not above 0: it is damaged, measure again")
    return frontier


def _known(samples: Samples) -> tuple[tuple[bool, bool], ...]:
    """What was measured on each frame: Dice, head circumference."""
    dice = samples.dice or (None,) * len(samples.hc_error_mm)
    return tuple((d is not None, error is not None) for d, error in zip_longest(dice, samples.hc_error_mm))
