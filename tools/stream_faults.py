"""Engines that fail in a stream, a hundred times each way: is there a result in time for every frame?

    python tools/stream_faults.py BUNDLE [--frames PATH] [--times 100] [--rt] [--json FILE]

Real frames are replayed at 30 Hz through a chain of two engines. At a random frame the first one begins to raise, to
hang, to give NaN or another shape, or (in a process of its own) gets a real SIGSEGV. A run passes where

- every frame has exactly one result, in the consumer's hand within the deadline of one period after its due time;
- a fresh mask is that of its own frame, and one that is not is marked stale and is the last one before it;
- the second engine is in charge, and fresh, from the second frame after the fault at the latest.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import cv2
import numpy as np

from edgeseg import samples
from edgeseg.bundle import open_bundle
from edgeseg.commands.progress import progress
from edgeseg.frame_source import FrameItem, FrameSource, SourceKind
from edgeseg.runtimes import realtime
from edgeseg.runtimes.segmenter import Segmenter, load
from edgeseg.runtimes.stream import Stream
from edgeseg.runtimes.stream_faults import Fault, FaultySession
from edgeseg.runtimes.stream_outbox import at_size
from edgeseg.runtimes.stream_result import Freshness, StreamOptions, StreamResult
from edgeseg.sources import open_source
from edgeseg.types import Bundle, Frame, Mask

_MOST_FRAMES = 32
_AFTER = 6  # frames after the fault
_ALLOWED = 2  # of them may pass until the next engine is in charge
_Hand = tuple[StreamResult, float]  # a result, and when the consumer had it


@dataclass
class Row:
    """One kind of fault, and what came of it."""

    fault: Fault
    runs: int = 0
    passed: int = 0
    stale: int = 0
    reasons: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    frames_to_switch: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For the table and the JSON."""
        return {
            "fault": str(self.fault),
            "runs": self.runs,
            "passed": self.passed,
            "stale_results": self.stale,
            "frames_to_switch_max": max(self.frames_to_switch, default=None),
            "p50_ms": float(np.median(self.latencies_ms)),
            "worst_ms": max(self.latencies_ms),
            "failures": self.reasons,
        }


@dataclass(frozen=True)
class Bench:
    """The frames, and what each engine makes of them."""

    frames: Sequence[Frame]
    masks: Sequence[Sequence[Mask]]
    rate_hz: float

    def source(self, count: int, at: int, strike: Callable[[], None]) -> FrameSource:
        """Frames at their times; the fault strikes just before one of them."""
        stopped = Event()

        def items() -> Iterator[FrameItem]:
            start = monotonic() + 0.02
            for index in range(count):
                due = start + index / self.rate_hz
                if stopped.wait(max(0.0, due - monotonic())):
                    return
                if index == at:
                    strike()
                yield FrameItem(self.frames[index % len(self.frames)], f"f{index}", index, captured_s=due)

        return FrameSource("replay", SourceKind.CAMERA, items(), rate_hz=self.rate_hz, live=True, stop=stopped.set)

    def faults(self, hands: Sequence[_Hand], count: int, at: int) -> Iterator[str]:
        """What is wrong with the results of a run."""
        if [result.index for result, _ in hands] != list(range(count)):
            yield f"results of frames {[result.index for result, _ in hands]}, expected 0 to {count - 1}"
        last: Mask | None = None
        for result, moment in hands:
            latency_ms = (moment - result.captured_s) * 1e3
            if latency_ms > 1e3 / self.rate_hz:
                yield f"frame {result.index} {result.freshness} after {latency_ms:.1f} ms"
            fresh = result.freshness is Freshness.FRESH
            if fresh:
                last = self.masks[result.position][result.index % len(self.frames)]
            if not np.array_equal(result.mask, at_size(last, result.frame.shape)):
                yield f"frame {result.index} has a mask that is not its own and not marked"
            if result.index >= at + _ALLOWED and not (fresh and result.position == 1):
                yield f"frame {result.index} is {result.freshness} at position {result.position}, fault at {at}"


def main() -> None:
    """Run all kinds, print the table, exit 1 where a run failed."""
    args = _arguments()
    cv2.setNumThreads(1)
    # Each of hundreds of switches logs a warning.
    logging.getLogger("edgeseg.stream").setLevel(logging.CRITICAL)
    bundle = open_bundle(args.bundle)
    chance = random.Random(args.seed)
    with ExitStack() as stack:
        if args.rt:
            for reason in stack.enter_context(realtime.apply()).refused:
                print(f"refused: {reason}", file=sys.stderr)
        second = stack.enter_context(load(bundle, runtime=args.second, precision=args.precision))
        rows = [_row(fault, bundle, second, args, chance) for fault in Fault]
    _report(rows, args)
    sys.exit(0 if all(row.passed == row.runs for row in rows) else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", default=str(samples.FRAMES), help="what is replayed; by default the sample frames")
    parser.add_argument("--first", default="openvino", help="runtime of the engine that fails")
    parser.add_argument("--second", default="litert", help="runtime of the one that takes over")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--times", type=int, default=100, help="runs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rt", action="store_true", help="with real-time scheduling")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _row(fault: Fault, bundle: Bundle, second: Segmenter, args: argparse.Namespace, chance: random.Random) -> Row:
    """All runs of one kind. A crash costs its engine, which is loaded again for each run."""
    row = Row(fault)
    isolate = fault is Fault.SEGFAULT
    frames = [item.frame for item, _ in zip(open_source(args.frames), range(_MOST_FRAMES), strict=False)]
    bench: Bench | None = None
    first: Segmenter | None = None
    with progress(str(fault), args.times) as advance:
        for _ in range(args.times):
            first = first or load(bundle, runtime=args.first, precision=args.precision, isolate=isolate)
            bench = bench or Bench(frames, [[s(f).mask for f in frames] for s in (first, second)], args.rate)
            _run(row, bench, first, second, chance.randint(3, 10))
            if isolate:
                first.close()
                first = None
            advance()
    if first:
        first.close()
    return row


def _run(row: Row, bench: Bench, first: Segmenter, second: Segmenter, at: int) -> None:
    engine = FaultySession.inside(first)
    count = at + 1 + _AFTER
    options = StreamOptions(results=count)
    source = bench.source(count, at, lambda: setattr(engine, "fault", row.fault))
    with Stream(source, (first, second), options) as stream:
        hands = [(result, monotonic()) for result in stream]
        # What hangs would be waited for when the stream is closed.
        engine.repair()
    found = list(bench.faults(hands, count, at))
    row.runs += 1
    row.passed += not found
    row.reasons += found[:1]
    row.stale += stream.stats.stale
    row.latencies_ms += [(moment - result.captured_s) * 1e3 for result, moment in hands]
    row.frames_to_switch += [r.index - at for r, _ in hands if r.position == 1 and r.segmentation][:1]
    engine.remove(first)


def _report(rows: Sequence[Row], args: argparse.Namespace) -> None:
    print(f"{args.first} fails, {args.second} takes over; {args.rate:g} Hz, deadline {1e3 / args.rate:.1f} ms")
    print(f"{'fault':10} {'passed':>10} {'stale':>6} {'frames to switch':>17} {'p50 ms':>7} {'worst ms':>9}")
    for row in rows:
        figures = row.figures()
        passed = f"{row.passed} of {row.runs}"
        switch = figures["frames_to_switch_max"]
        print(
            f"{row.fault!s:10} {passed:>10} {row.stale:6} {switch!s:>17} {figures['p50_ms']:7.2f}"
            f" {figures['worst_ms']:9.2f}"
        )
        for reason in row.reasons[:3]:
            print(f"{'':10} {reason}")
    if args.json:
        document = {"rate_hz": args.rate, "rows": [row.figures() for row in rows]}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
