"""What the checks cost when a bundle is opened: `python tools/load_cost.py [BUNDLE] [--size-mb N] [--repeats N]`.

Measured is a copy of BUNDLE with as many of its artifacts as fit into the size, or, without BUNDLE, one of made-up
content (hashing costs the same). The files are in the page cache: this is the cost of the checks, not of the disk. A
fresh process pays the imports besides; that is the last line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from edgeseg import open_bundle
from edgeseg.boards.detect import describe
from edgeseg.bundle import file_record, write_manifest
from edgeseg.durable import new_folder
from edgeseg.keys import new_key
from edgeseg.manifest import MANIFEST, SCHEMA, records
from edgeseg.signing import sign_bundle
from edgeseg.types import Artifact, Bundle, Format, Golden, Manifest, Precision, Preprocess

FRAMES = 8
FRESH = """
from time import perf_counter
started = perf_counter()
import sys
from edgeseg import open_bundle
open_bundle(sys.argv[1], trusted_keys=sys.argv[2:] or None)
print(1e3 * (perf_counter() - started))
"""


def copy_of(bundle: Bundle, size: int, target: Path) -> None:
    """The bundle with its golden frames and the first artifacts that fit into `size` bytes."""
    root = bundle.path
    frames = tuple(
        Golden(*(file_record(f.path, root) for f in (g.frame, g.mask, g.logits))) for g in bundle.manifest.golden
    )
    left = size - sum(f.size_bytes for g in frames for f in (g.frame, g.mask, g.logits))
    artifacts = []
    for artifact in sorted(bundle.artifacts, key=lambda a: -a.size_bytes):
        if artifact.size_bytes <= left:
            artifacts.append(replace(artifact, files=tuple(file_record(f.path, root) for f in artifact.files)))
            left -= artifact.size_bytes
    manifest = replace(bundle.manifest, artifacts=tuple(artifacts), golden=frames, schema=SCHEMA)
    with new_folder(target) as staging:
        for record in records(manifest):
            (staging / record.path).parent.mkdir(exist_ok=True)
            shutil.copy(root / record.path, staging / record.path)
        write_manifest(staging, manifest)


def made_up(size: int, target: Path) -> None:
    """Four artifacts and eight golden frames of random bytes, `size` bytes in all."""
    rng = np.random.default_rng(0)
    with new_folder(target) as staging:

        def write(name: str, length: int) -> Path:
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(rng.bytes(length))
            return path

        frames = [[write(f"golden/{n}{s}", size // 100) for s in (".png", ".mask.png", ".npy")] for n in range(FRAMES)]
        golden = tuple(Golden(*(file_record(p, staging) for p in paths)) for paths in frames)
        left = size - 3 * FRAMES * (size // 100)
        kinds = [(k, p) for k in (Format.ONNX, Format.TFLITE) for p in (Precision.FP32, Precision.INT8)]
        artifacts = tuple(
            Artifact(k, p, (file_record(write(f"artifacts/model.{p}.{k}", left // len(kinds)), staging),))
            for k, p in kinds
        )
        preprocess = Preprocess(256, 256)
        write_manifest(staging, Manifest("made-up", ("background", "head"), preprocess, artifacts, golden=golden))


def milliseconds(acts: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Sorted durations of so many calls of each, in turns, after two rounds that do not count."""
    times: list[list[float]] = [[] for _ in acts]
    for turn in range(repeats + 2):
        for act, taken in zip(acts, times, strict=True):
            started = perf_counter()
            act()
            if turn > 1:
                taken.append(1e3 * (perf_counter() - started))
    return [sorted(taken) for taken in times]


def fresh(*arguments: object) -> float:
    """Median of five fresh processes that import edgeseg and open the bundle, in ms."""
    command = [sys.executable, "-c", FRESH, *map(str, arguments)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--size-mb", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    os.environ.pop("EDGESEG_TRUSTED_KEYS", None)
    size = int(options.size_mb * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        target, vouched = work / "unsigned.edgeseg", work / "signed.edgeseg"
        if options.bundle:
            copy_of(open_bundle(options.bundle), size, target)
        else:
            made_up(size, target)
        key = new_key("measured", work)
        sign_bundle(shutil.copytree(target, vouched), key.with_suffix(".key"))
        acts = (lambda: open_bundle(target), lambda: open_bundle(vouched, trusted_keys=key))
        unsigned, signed = milliseconds(acts, options.repeats)
        listed = list(records(open_bundle(target).manifest))
        total = sum(r.size_bytes for r in listed)
        manifest = (target / MANIFEST).stat().st_size
        print(f"{describe()}")
        print(f"{options.bundle or 'made-up'}: {total / 1e6:.2f} MB in {len(listed)} files, manifest {manifest} bytes")
        for name, times in (("without a signature", unsigned), ("with a signature", signed)):
            p90 = times[int(0.9 * len(times))]
            print(f"{name:20} p50 {statistics.median(times):6.2f} ms   p90 {p90:6.2f} ms   of {len(times)} opens")
        first, first_signed = fresh(target), fresh(vouched, key)
        print(f"first open of a fresh process, imports included: {first:.0f} ms, signed {first_signed:.0f} ms")


if __name__ == "__main__":
    main()
