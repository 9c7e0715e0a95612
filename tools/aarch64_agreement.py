"""Whether an ARM processor gives the masks that this one gives: every artifact of a bundle on both, and preprocessing.

    python -m edgeseg.boards.aarch64 build build/aarch64
    python tools/aarch64_agreement.py build/aarch64 BUNDLE FRAMES [--count 8] [--json FILE]

The same file runs here and on the emulated board: frames to network inputs, logits and masks, and what OpenCV alone
makes of frames and logits. Masks are compared from the frame on, so that a network input that differs would show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg import open_bundle, plugins
from edgeseg.boards.aarch64.board import open_board
from edgeseg.errors import EdgesegError
from edgeseg.plugins import ENGINE_OF
from edgeseg.preprocess import area_of, to_input, to_mask
from edgeseg.resize import resize_exactly
from edgeseg.scan_area import find_area
from edgeseg.types import Bundle, Interpolation, ScanArea

FRAMES = [
    *((1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (17, 31), (33, 1024), (64, 64), (100, 300), (128, 128), (255, 257)),
    *((256, 256), (480, 640), (512, 512), (540, 800), (720, 960), (768, 768), (1080, 776)),
]
NETWORKS = [(1, 1), (5, 3), (8, 16), (37, 91), (64, 64), (255, 129), (256, 256), (320, 320), (540, 800)]
FEW_FRAMES, FEW_NETWORKS = [(3, 5), (64, 64), (128, 128), (540, 800)], [(37, 91), (64, 64), (256, 256)]
FLAGS = {Interpolation.LINEAR: cv2.INTER_LINEAR, Interpolation.AREA: cv2.INTER_AREA}
SIDE_S = 550

Found = dict[str, Any]


def compare(board: Path, bundle: Path, frames: list[Path], *, all_sizes: bool) -> Found:
    """Run both sides.

    Returns:
        "artifacts": a row for each, "preprocessing": a row for each step, each with what differed.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name, python in (("here", Path(sys.executable)), ("board", board / "bin/python")):
            out = Path(folder) / f"{name}.npz"
            task = {"bundle": str(bundle), "frames": [str(f) for f in frames], "out": str(out), "all": all_sizes}
            subprocess.run([python, __file__, "--side", json.dumps(task)], check=True, timeout=SIDE_S)
            with np.load(out) as found:
                sides.append(dict(found))
        here, there = sides
    names = sorted({key.split("/")[1] for key in (*here, *there) if key.startswith("artifact/")})
    steps = sorted({key.split("/")[1] for key in here if key.startswith("step/")})
    return {
        "machines": [str(here["machine"]), str(there["machine"])],
        "artifacts": [_artifact_row(name, here, there) for name in names],
        "preprocessing": [_step_row(step, here, there) for step in steps],
    }


def side(task: Found) -> None:
    """Write what this machine makes of a task."""
    import platform

    cv2.setNumThreads(1)
    found: dict[str, Any] = {"machine": platform.machine()}
    bundle = open_bundle(task["bundle"])
    frames = [cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in task["frames"]]
    found |= _masks(bundle, frames)
    sizes = (FRAMES, NETWORKS) if task["all"] else (FEW_FRAMES, FEW_NETWORKS)
    for name, array in (*_resizes(*sizes), *_steps(bundle, frames)):
        found[f"step/{name}"] = array
    np.savez(task["out"], **found)


def _masks(bundle: Bundle, frames: list[np.ndarray]) -> Found:
    found: dict[str, Any] = {}
    for artifact in bundle.artifacts:
        engine = ENGINE_OF[artifact.format]
        key = f"artifact/{artifact.name} on {engine}"
        try:
            with plugins.runtime(engine).load(artifact.path, threads=1) as session:
                source, sink = session.inputs[0], session.outputs[0]
                for index, frame in enumerate(frames):
                    area = area_of(frame, bundle.preprocess)
                    image = to_input(frame, bundle.preprocess, source.layout, area=area)
                    logits = np.array(session.run({source.name: image})[sink.name])
                    found[f"{key}/logits/{index}"] = logits
                    found[f"{key}/mask/{index}"] = to_mask(logits, frame.shape, sink.layout, area=area)
        except EdgesegError as error:
            found[f"{key}/error"] = str(error)
    return found


def _resizes(frames: list[tuple[int, int]], networks: list[tuple[int, int]]) -> Iterator[tuple[str, np.ndarray]]:
    for frame, (height, width), interpolation, colours in product(frames, networks, Interpolation, ((), (3,))):
        image = np.random.default_rng((*frame, height, width)).integers(0, 256, (*frame, *colours), np.uint8)
        kind = f"{'colour' if colours else 'gray'} {interpolation}/{frame[0]}x{frame[1]} to {height}x{width}"
        yield f"cv2.resize {kind}", cv2.resize(image, (width, height), interpolation=FLAGS[interpolation])
        if frame in FEW_FRAMES and (height, width) in FEW_NETWORKS:
            yield f"edgeseg.resize {kind}", resize_exactly(image, (width, height), interpolation)


def _steps(bundle: Bundle, frames: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    levels = np.arange(256, dtype=np.uint8)
    for red in range(0, 256, 5):
        colours = np.stack(np.broadcast_arrays(np.uint8(red), levels[:, None], levels), 2)
        yield f"RGB to gray/{red}", cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY)
    rng = np.random.default_rng(0)
    for index, frame in enumerate(frames):
        yield f"network input of a frame/{index}", to_input(frame, bundle.preprocess)
        coarse = cv2.GaussianBlur(rng.normal(0, 4, (64, 64)).astype(np.float32), (0, 0), 3)
        yield f"mask of equal logits/{index}", to_mask(_written(coarse), frame.shape)
        box = find_area(frame, ScanArea(detect=True))
        yield f"detected scan area/{index}", np.array([box.left, box.top, box.width, box.height])


def _written(coarse: np.ndarray) -> np.ndarray:
    """Logits that both sides have to the bit: a blur may differ in the last one."""
    return (np.round(coarse * 4096) / 4096).astype(np.float32)[None, None]


def _artifact_row(name: str, here: Found, there: Found) -> Found:
    key = f"artifact/{name}/"
    errors = [str(side[f"{key}error"]) if f"{key}error" in side else None for side in (here, there)]
    row: Found = {"artifact": name, "error_here": errors[0], "error_board": errors[1], "frames": 0}
    masks = [k for k in here if k.startswith(f"{key}mask/") and k in there]
    if any(errors) or not masks:
        return row
    logits = [k.replace("/mask/", "/logits/") for k in masks]
    return row | {
        "frames": len(masks),
        "equal_masks": sum(np.array_equal(here[k], there[k]) for k in masks),
        "worst_agreement": min(float((here[k] == there[k]).mean()) for k in masks),
        "agreement": float(np.mean([(here[k] == there[k]).mean() for k in masks])),
        "foreground": float(np.mean([(there[k] > 0).mean() for k in masks])),
        "logits_equal": sum(np.array_equal(here[k], there[k]) for k in logits),
        "logits_max_difference": max(float(np.abs(here[k] - there[k]).max()) for k in logits),
        "masks_sha256": [_hash(side, masks) for side in (here, there)],
    }


def _step_row(step: str, here: Found, there: Found) -> Found:
    keys = [k for k in here if k.startswith(f"step/{step}/")]
    differences = {k.split("/", 2)[2]: np.abs(here[k].astype(np.float64) - there[k]) for k in keys}
    wrong = {k: d for k, d in differences.items() if d.any()}
    worst = max(wrong, key=lambda k: wrong[k].max(), default=None)
    return {
        "step": step,
        "cases": len(keys),
        "cases_that_differ": len(wrong),
        "values": sum(d.size for d in differences.values()),
        "values_that_differ": int(sum(np.count_nonzero(d) for d in wrong.values())),
        "largest_difference": max((float(d.max()) for d in wrong.values()), default=0.0),
        "worst_case": worst,
    }


def _hash(side: Found, keys: list[str]) -> str:
    return hashlib.sha256(b"".join(side[k].tobytes() for k in sorted(keys))).hexdigest()


def _print(found: Found) -> None:
    print(f"masks on {found['machines'][1]}, against those on {found['machines'][0]}")
    for row in found["artifacts"]:
        if not row["frames"]:
            print(f"  {row['artifact']:32} not compared: {row['error_board'] or row['error_here']}")
            continue
        print(
            f"  {row['artifact']:32} {row['equal_masks']} of {row['frames']} masks equal, agreement "
            f"{row['agreement']:.6f} (worst {row['worst_agreement']:.6f}), logits within "
            f"{row['logits_max_difference']:.2e}, sha256 {row['masks_sha256'][0][:8]} {row['masks_sha256'][1][:8]}"
        )
    print("preprocessing: cases that differ, values that differ, largest difference")
    for row in found["preprocessing"]:
        share = row["values_that_differ"] / row["values"]
        worst = f" ({row['worst_case']})" if row["worst_case"] else ""
        print(
            f"  {row['step']:32} {row['cases_that_differ']} of {row['cases']}, {row['values_that_differ']} of "
            f"{row['values']} ({share:.4%}), {row['largest_difference']:g}{worst}"
        )


def main() -> None:
    """Compare and print; or be one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("board", nargs="?", type=Path, help="folder of the aarch64 board")
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("frames", nargs="?", type=Path, help="folder of images")
    parser.add_argument("--count", type=int, default=8, help="of frames")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side(json.loads(args.side))
        return
    if not args.frames:
        parser.error("BOARD, BUNDLE and FRAMES are needed")
    frames = sorted(args.frames.glob("*.png"))[: args.count]
    found = compare(open_board(args.board).folder, args.bundle, frames, all_sizes=True)
    _print(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
