"""A paced replay through a stream, idle and beside CPU hogs, with and without real-time scheduling.

    python tools/stream_realtime.py BUNDLE [--minutes 10] [--hogs 2] [--ends] [--idle-every 4] [--json FILE]

Latency is from a frame's due time to its result in the consumer's hand. A frame is missed where that is more than one
period, where its result is stale, or where it has none. Asked of the last row: no frame missed, and a p99.9 of at most
twice that of the first. Rounds of the rows are interleaved, so that drift of the machine hits all alike; the minutes
are those of each row, of the idle ones fewer with --idle-every.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np

from edgeseg import samples
from edgeseg.bundle import open_bundle
from edgeseg.commands.cpu_hogs import CpuHogs
from edgeseg.runtimes import realtime
from edgeseg.runtimes.fallback import load_chain
from edgeseg.runtimes.segmenter import Segmenter
from edgeseg.runtimes.stream import Stream
from edgeseg.runtimes.stream_result import Freshness, StreamOptions
from edgeseg.sources import open_source, paced

_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
_LARGEST_RATIO = 2.0


@dataclass
class Row:
    """One way of running, and what came of it."""

    hogs: bool
    real_time: bool
    latencies_ms: list[float] = field(default_factory=list)
    frames: int = 0
    missed: int = 0
    stale: int = 0
    switches: int = 0
    refused: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As in "hogs, rt"."""
        return ("hogs" if self.hogs else "idle") + (", rt" if self.real_time else "")

    def percentile(self, percent: float) -> float:
        """Of the latencies, in ms."""
        return float(np.percentile(self.latencies_ms, percent))

    def figures(self) -> dict[str, Any]:
        """For the JSON."""
        times = {f"p{percent:g}_ms".replace("p100_", "max_"): self.percentile(percent) for percent in _PERCENTILES}
        counts = {"frames": self.frames, "missed": self.missed, "stale": self.stale, "switches": self.switches}
        return {"row": self.name, **counts, **times, "refused": list(self.refused)}


def main() -> None:
    """Measure, print the table, exit 1 where the last row misses what is asked of it."""
    args = _arguments()
    cv2.setNumThreads(1)
    bundle = open_bundle(args.bundle)
    rows = [Row(False, False), Row(False, True), Row(True, False), Row(True, True)]
    rows = [rows[0], rows[-1]] if args.ends else rows
    with ExitStack() as stack:
        chain = load_chain(bundle, args.link, threads=1)
        for segmenter in chain:
            stack.enter_context(segmenter)
        rounds = max(1, round(args.minutes * 60 / args.round))
        for number in range(rounds):
            for row in rows:
                if row.hogs or number % args.idle_every == 0:
                    _measure(row, chain, args)
            print(f"round {number + 1} of {rounds}: {_line(rows)}", file=sys.stderr, flush=True)
    passed = _report(rows, chain, args)
    sys.exit(0 if passed else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", default=str(samples.FRAMES), help="what is replayed; by default the sample frames")
    parser.add_argument("--link", action="append", default=[], help="as of `edgeseg stream`")
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each row")
    parser.add_argument("--round", type=float, default=30.0, help="seconds of each row in one round")
    parser.add_argument("--hogs", type=int, default=2)
    parser.add_argument("--ends", action="store_true", help="only the two rows that are compared")
    parser.add_argument("--idle-every", type=int, default=1, help="rounds of the hogs for one without")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measure(row: Row, chain: tuple[Segmenter, ...], args: argparse.Namespace) -> None:
    frames = round(args.round * args.rate)
    period_ms = 1e3 / args.rate
    with ExitStack() as stack:
        # The hogs first: what starts later inherits real-time scheduling.
        stack.enter_context(CpuHogs(args.hogs if row.hogs else 0))
        if row.real_time:
            row.refused = stack.enter_context(realtime.apply()).refused
        source = paced(open_source(args.frames), args.rate, loop=True)
        stream = stack.enter_context(Stream(source, chain, StreamOptions(deadline_ms=period_ms)))
        before = None
        for result in stream:
            now = monotonic()
            latency_ms = (now - result.captured_s) * 1e3
            row.latencies_ms.append(latency_ms)
            row.stale += result.freshness is Freshness.STALE
            row.missed += latency_ms > period_ms or result.freshness is Freshness.STALE
            # By the clock, so that due times which the replay itself slept through count too.
            gone = 1 if before is None else max(1, round((result.captured_s - before) * args.rate))
            row.missed += gone - 1
            row.frames += gone
            before = result.captured_s
            if result.index + 1 >= frames:
                break
        row.switches += len(stream.stats.switches)


def _line(rows: list[Row]) -> str:
    return "; ".join(f"{row.name} {row.missed} missed, p99.9 {row.percentile(99.9):.2f} ms" for row in rows)


def _report(rows: list[Row], chain: tuple[Segmenter, ...], args: argparse.Namespace) -> bool:
    print(f"{chain[0].artifact.name} on {chain[0].runtime}, {args.rate:g} Hz, {args.hogs} hogs")
    print(f"{'':10} {'frames':>7} {'missed':>7} {'stale':>6} " + " ".join(f"{f'p{p:g}':>8}" for p in _PERCENTILES))
    for row in rows:
        times = " ".join(f"{row.percentile(p):8.2f}" for p in _PERCENTILES)
        print(f"{row.name:10} {row.frames:7} {row.missed:7} {row.stale:6} {times}")
        for reason in row.refused:
            print(f"{'':10} refused: {reason}")
    ratio = rows[-1].percentile(99.9) / rows[0].percentile(99.9)
    passed = rows[-1].missed == 0 and ratio <= _LARGEST_RATIO and not rows[-1].refused
    print(f"{rows[-1].name} against {rows[0].name}: p99.9 x {ratio:.2f}: {'passed' if passed else 'failed'}")
    if args.json:
        document = {"rows": [row.figures() for row in rows], "p999_ratio": ratio, "passed": passed}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return passed


if __name__ == "__main__":
    main()
