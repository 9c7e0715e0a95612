"""What a segmenter costs beside its engine, and against what one would use instead. Asked and measured, as a table.

    python tools/segmenter_overhead.py head.edgeseg other.edgeseg --colour colour.edgeseg --json overhead.json

One core, one thread, OpenCV too. All that is compared runs in turns of some hundredths of a second. A p50 is the median
of the turns' medians, a difference that of the turns' differences, and a p99 is of all calls: it takes a quiet machine.

- engine: the fastest calling sequence that the engine itself offers, on an input that is there already. The segmenter
  gets a frame of the network's size and gives a mask, and that work is in the difference. The 50 us hold for p99 too:
  where they are much for p50, 5 % of it would be less than that.
- frame: an 800x540 golden frame in, a mask of that size out. Outside the engine is all but `timing.infer`. The script
  is OpenCV and ONNX Runtime in few lines, on the ONNX artifact of the same precision, and gives the same mask. The lean
  one leaves out the sigmoid; what is left cannot be left out, so that only the engine can win, and nothing is asked.
- model_api: `SegmentationModel` of openvino-model-api on the OpenVINO artifact, in its own environment, made on the
  first run. It takes three channels only: tools/peers/colour_student.py says how to make the bundle.

Exits 1 where something asked for is not reached. What import, first result and reloads cost: tools/embedding_cost.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
from bare_engines import network_frame, plain_script, sequences
from in_turns import Times, Turn, difference, in_turns, turn

import edgeseg
from edgeseg.boards.detect import describe
from edgeseg.errors import EdgesegError
from edgeseg.golden import read_frame
from edgeseg.plugins import ENGINE_OF
from edgeseg.runtimes.segmenter import Segmenter
from edgeseg.types import Array, Artifact, Bundle, Format

sys.path.append(str(Path(__file__).with_name("peers")))

WIDTH, HEIGHT = 800, 540
LEAN = "lean script"
OVERHEAD_US, SHARE, SHARE_P99, OUTSIDE_MS, FASTEST_MS = 50.0, 0.03, 0.05, 0.3, 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was asked ("" for nothing) and measured, in words, and whether that is enough."""

    what: str
    bundle: str
    artifact: str
    asked: str
    measured: str
    passed: bool


def against_the_engine(bundle: Bundle, artifact: Artifact, calls: int) -> Iterator[Line]:
    """A frame of the network's size against the bare engine; a whole frame, without the engine's time."""
    bare = {way: turn(call) for way, call in sequences(artifact, 1).items()}
    line = partial(Line, bundle=bundle.manifest.name, artifact=artifact.name)
    with _load(bundle, artifact) as segmenter:
        times = in_turns({**bare, "segmenter": turn(partial(segmenter, network_frame(artifact)))}, calls)
        frame = whole_frame(bundle)
        outside = median(_outside_ms(segmenter, frame) for _ in range(calls))
    engine, ours = times[min(bare, key=lambda way: times[way].typical)], times["segmenter"]
    for name, share, us, base in (
        ("p50", SHARE, difference(ours, engine), engine.typical),
        ("p99", SHARE_P99, ours.p99 - engine.p99, engine.p99),
    ):
        asked, measured = f"{share:.0%} or {OVERHEAD_US:.0f} us", f"{us:+.0f} us, {us / base:+.1%} of {base:.0f} us"
        yield line(
            f"over the engine, {name}", asked=asked, measured=measured, passed=us <= max(OVERHEAD_US, share * base)
        )
    passed = outside <= OUTSIDE_MS
    yield line("frame, outside the engine", asked=f"{OUTSIDE_MS} ms", measured=f"{outside:.3f} ms", passed=passed)


def frames_to_masks(bundle: Bundle, calls: int, python: Path | None, work: Path) -> Iterator[Line]:
    """Every artifact against a script, and against model_api where its python is given."""
    frame = whole_frame(bundle)
    for precision in dict.fromkeys(artifact.precision for artifact in bundle.artifacts):
        own = {a.format: a for a in bundle.artifacts if a.precision is precision}
        with ExitStack() as stack:
            turns: dict[str, Turn] = {}
            for artifact in own.values():
                turns[artifact.name] = turn(partial(stack.enter_context(_load(bundle, artifact)), frame))
            others: dict[str, Turn] = {}
            if Format.ONNX in own:
                single = own[Format.ONNX].outputs[0].shape[1] == 1
                for other in ("script", LEAN) if single else ("script",):
                    others[other] = turn(partial(plain_script(own[Format.ONNX], 1, other == LEAN), frame))
            if python and Format.OPENVINO in own:
                from model_api_peer import ModelApi

                others["model_api"] = stack.enter_context(ModelApi(python, own[Format.OPENVINO].path, frame, work)).turn
            times = in_turns({**turns, **others}, calls)
        for other in others:
            yield from (_against(bundle, name, other, times) for name in turns)


def the_fastest(bundles: Sequence[Bundle], calls: int) -> Line:
    """A frame to a mask by every artifact of all bundles: the one that takes the least time."""
    with ExitStack() as stack:
        turns = {
            (bundle.manifest.name, artifact.name): turn(
                partial(stack.enter_context(_load(bundle, artifact)), whole_frame(bundle))
            )
            for bundle in bundles
            for artifact in bundle.artifacts
        }
        times = in_turns({" ".join(key): value for key, value in turns.items()}, calls)
    bundle, artifact = min(turns, key=lambda key: times[" ".join(key)].typical)
    ms = times[f"{bundle} {artifact}"].typical / 1e3
    return Line("frame, the fastest", bundle, artifact, f"{FASTEST_MS} ms", f"{ms:.3f} ms", ms <= FASTEST_MS)


def whole_frame(bundle: Bundle) -> Array:
    """A golden frame of 800x540 with as many channels as the network has; noise where there is none."""
    golden, channels = bundle.manifest.golden, bundle.preprocess.channels
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    frame: Array = cv2.resize(read_frame(golden[0]), (WIDTH, HEIGHT)) if golden else noise
    if (frame.ndim == 3) == (channels == 3):
        return frame
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB if channels == 3 else cv2.COLOR_RGB2GRAY)


def table(lines: Sequence[Line]) -> str:
    """All lines as Markdown."""
    rows = [("what", "bundle", "artifact", "asked", "measured", "")]
    for x in lines:
        verdict = "" if not x.asked else "ok" if x.passed else "MISSED"
        rows.append((x.what, x.bundle, x.artifact, x.asked and f"<= {x.asked}", x.measured, verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def _load(bundle: Bundle, artifact: Artifact) -> Segmenter:
    runtime = ENGINE_OF[artifact.format]
    return edgeseg.load(bundle, runtime=runtime, device="cpu", precision=artifact.precision, threads=1)


def _outside_ms(segmenter: Segmenter, frame: Array) -> float:
    start = perf_counter()
    result = segmenter(frame)
    return (perf_counter() - start) * 1e3 - result.timing.infer


def _against(bundle: Bundle, name: str, other: str, times: dict[str, Times]) -> Line:
    ours, theirs = times[name].typical / 1e3, times[other].typical / 1e3
    slower = difference(times[name], times[other])
    asked, measured = f"{theirs:.3f} ms", f"{ours:.3f} ms, {theirs / ours:.2f}x"
    if other == LEAN:
        asked, measured = "", f"{ours:.3f} ms, {theirs / ours:.2f}x of {theirs:.3f} ms"
    return Line(f"frame, against {other}", bundle.manifest.name, name, asked, measured, other == LEAN or slower < 0)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--colour", type=Path, help="a bundle of three channels, for model_api")
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="where model_api is installed")
    parser.add_argument("--calls", type=int, default=2000, help="of each thing that is measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    try:
        lines = list(measure(options))
    except EdgesegError as error:
        sys.exit(f"segmenter_overhead: {error}")
    print(f"{describe()}, one core, {options.calls} calls each\n\n{table(lines)}")
    if options.json:
        content = {"schema": 1, "board": describe(), "calls": options.calls}
        options.json.write_text(json.dumps(content | {"lines": [asdict(line) for line in lines]}, indent=2) + "\n")
    sys.exit(0 if all(line.passed for line in lines) else 1)


def measure(options: argparse.Namespace) -> Iterator[Line]:
    """All lines; what is going on is said on stderr."""
    bundles = [edgeseg.open_bundle(path) for path in options.bundles]
    for bundle in bundles:
        for artifact in bundle.artifacts:
            print(f"{bundle.manifest.name} {artifact.name} against its engine", file=sys.stderr)
            yield from against_the_engine(bundle, artifact, options.calls)
        print(f"{bundle.manifest.name} against a script", file=sys.stderr)
        yield from frames_to_masks(bundle, options.calls, None, options.work)
    yield the_fastest(bundles, options.calls)
    if options.colour:
        from model_api_peer import install

        print(f"installing openvino-model-api in {options.work} (skipped where it is)", file=sys.stderr)
        python = install(options.work)
        yield from frames_to_masks(edgeseg.open_bundle(options.colour), options.calls, python, options.work)


if __name__ == "__main__":
    main()
