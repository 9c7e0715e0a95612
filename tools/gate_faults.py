"""What the gates see: clean artifacts and injected faults, `python tools/gate_faults.py BUNDLE... --data DIR`.

Every artifact is held against the fp32 ONNX artifact of its bundle, once as it is and once for each fault of a
deployment; printed is what each figure reads and which gates fail. A network that was distilled or pruned is also held
against another bundle's (`--source BUNDLE`), by the gates of the task alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from edgeseg import open_bundle
from edgeseg.commands.measuring import evaluation_frames, hc_offset
from edgeseg.commands.table import Cell, print_table
from edgeseg.dataset import read_folder, read_pair
from edgeseg.evidence import Gates, Parity
from edgeseg.gates import judge, judge_task
from edgeseg.parity import Comparison, ReferenceFrame, RunLogits, nchw_runner, reference_frame
from edgeseg.plugins import ENGINES, runtime
from edgeseg.preprocess import area_of, to_input, to_mask
from edgeseg.runtimes.opening import open_session
from edgeseg.types import Array, Box, Bundle, Format, Frame, Precision, Preprocess

Feed = Callable[[Frame, Preprocess, Box | None], Array]
TINT = (1.0, 0.9, 0.7)
WEIGHTS = (0.6, 0.3, 0.1)


def clean(frame: Frame, preprocess: Preprocess, area: Box | None) -> Array:
    """As edgeseg does it."""
    return to_input(frame, preprocess, area=area)


def half_pixel(frame: Frame, preprocess: Preprocess, area: Box | None) -> Array:
    """A resize that takes the corner of a pixel for its centre: pixel x of the input is x * scale of the frame."""
    if area is not None:
        frame = frame[area.top : area.top + area.height, area.left : area.left + area.width]
    scale_y, scale_x = frame.shape[0] / preprocess.height, frame.shape[1] / preprocess.width
    matrix = np.array([[scale_x, 0, 0], [0, scale_y, 0]], np.float32)
    size = (preprocess.width, preprocess.height)
    image = cv2.warpAffine(
        frame, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return image.astype(np.float32)[None, None]


def scaled(factor: float) -> Feed:
    """The only channel of a gray network, by a wrong factor."""
    return lambda frame, preprocess, area: clean(frame, preprocess, area) * np.float32(factor)


def swapped_colours(frame: Frame, preprocess: Preprocess, area: Box | None) -> Array:
    """BGR for RGB: a tinted frame into a network whose first layer weighs the channels 0.6, 0.3 and 0.1."""
    channels = clean(frame, preprocess, area) * np.array(TINT, np.float32)[None, :, None, None]
    right = sum(w * t for w, t in zip(WEIGHTS, TINT, strict=True))
    weights = np.array(WEIGHTS[::-1], np.float32)[None, :, None, None] / np.float32(right)
    return (channels * weights).sum(1, keepdims=True, dtype=np.float32)


def transposed(frame: Frame, preprocess: Preprocess, area: Box | None) -> Array:
    """Columns for rows on the way in: the bytes in that order, whatever the sides are."""
    pixels = clean(frame, preprocess, area)
    return np.ascontiguousarray(pixels.transpose(0, 1, 3, 2)).reshape(pixels.shape)


FLIPPED = "flipped mask"  # left for right; the logits are right
CASES: dict[str, Feed] = {
    "clean": clean,
    "half-pixel shift": half_pixel,
    "scale x 0.9": scaled(0.9),
    "scale x 0.5": scaled(0.5),
    "BGR for RGB": swapped_colours,
    "transposed": transposed,
    FLIPPED: clean,
}


def sessions(bundle: Bundle, stack: ExitStack) -> Iterator[tuple[str, Precision, RunLogits]]:
    """Each artifact on the engine that reads its format first, one thread."""
    for artifact in bundle.artifacts:
        engine = next(name for name in ENGINES if artifact.format in runtime(name).formats)
        session = stack.enter_context(open_session(bundle, artifact, engine, device="cpu", threads=1))
        run = nchw_runner(session.run, session.inputs, session.outputs)
        yield artifact.name, artifact.precision, run


def reference_run(bundle: Bundle, stack: ExitStack) -> RunLogits:
    """The fp32 ONNX artifact in the place of the source."""
    name = f"{Format.ONNX}-{Precision.FP32}"
    return next(run for artifact, _, run in sessions(bundle, stack) if artifact == name)


def references(path: Path, split: str | None, bundle: Bundle, run: RunLogits) -> Iterator[ReferenceFrame]:
    """What the reference makes of the evaluation frames, one by one."""
    for sample in evaluation_frames(path, split).samples:
        frame, truth = read_pair(sample, len(bundle.classes))
        yield reference_frame(frame, truth, bundle.preprocess, run, sample)


def measure(bundle: Bundle, source: Bundle, data: Path, split: str | None) -> dict[tuple[str, str], Parity]:
    """Every artifact and case against the fp32 artifact of `source`."""
    offset = hc_offset(read_folder(data), len(bundle.classes))
    with ExitStack() as stack:
        runs = {name: run for name, _, run in sessions(bundle, stack)}
        cases = CASES if source is bundle else {"against the source": clean}
        comparisons = {(name, case): Comparison(offset) for name in runs for case in cases}
        for reference in references(data, split, bundle, reference_run(source, stack)):
            frame, area = reference.frame, area_of(reference.frame, bundle.preprocess)
            for (name, case), comparison in comparisons.items():
                logits = runs[name](cases[case](frame, bundle.preprocess, area))
                mask = to_mask(logits, frame.shape, area=area)
                comparison.add(reference, logits, np.ascontiguousarray(mask[:, ::-1]) if case == FLIPPED else mask)
    return {key: comparison.parity(key[0]) for key, comparison in comparisons.items()}


def row(name: str, case: str, parity: Parity, task_only: bool) -> list[Cell]:
    """What the figures read, and the gates that fail."""
    judged = judge_task(parity, Gates()) if task_only else judge(parity, Gates(), Precision(name.rpartition("-")[2]))
    strata = {s.name: s for s in parity.strata}
    worst, exam = strata["worst-tenth"], strata["exam"]
    figures = (
        (parity.sqnr_db, ".1f"),
        (parity.agreement, ".5f"),
        (parity.dice_source, ".4f"),
        (parity.dice_drop, ".4f"),
        (parity.hc_increase_mm, ".2f"),
        (parity.hc_difference_mm, ".2f"),
        (parity.hd95_px, ".2f"),
        (None if parity.hd95_share is None else 100 * parity.hd95_share, ".2f"),
        (None if parity.area_difference is None else 100 * parity.area_difference, ".2f"),
        (parity.shift_px, ".2f"),
        (worst.dice_source, ".4f"),
        (exam.dice_source, ".4f"),
        (exam.dice_drop, ".4f"),
    )
    failed = ", ".join(j.gate for j in judged if j.passed is False) or "none"
    return [name, case, *(None if v is None else format(v, style) for v, style in figures), failed]


COLUMNS = (
    *("artifact", "case", "SQNR dB", "agreement", "Dice to source", "Dice drop", "HC increase mm", "HC difference mm"),
    *("HD95 px", "HD95 % of diagonal", "area %", "shift px", "worst tenth", "worst exam", "worst exam's drop"),
    "failed gates",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--source", type=Path, help="bundle of the network that the others were made of")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split")
    options = parser.parse_args()
    for path in options.bundles:
        bundle = open_bundle(path)
        measured = measure(bundle, bundle, options.data, options.split)
        rows = [row(*key, parity, task_only=False) for key, parity in measured.items()]
        if options.source and options.source != path:
            other = measure(bundle, open_bundle(options.source), options.data, options.split)
            rows += [row(*key, parity, task_only=True) for key, parity in other.items()]
        print_table(bundle.manifest.name, COLUMNS, rows)


if __name__ == "__main__":
    main()
