"""What zeros buy: `python tools/sparsity_sizes.py [--rounds N]`, for the embedded MobileNetV2 segmenter.

Each share of zeros becomes a bundle of all formats. Printed are the sizes for the download, and latencies on one
thread, for which all candidates take turns. The zeros are not fine-tuned: neither size nor latency depends on that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from edgeseg import open_bundle, samples
from edgeseg.commands.compressing import open_session
from edgeseg.commands.table import Cell, print_table
from edgeseg.converters.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.converters.recipe import Sparsify
from edgeseg.converters.sparsify import sparsify
from edgeseg.dataset import read_folder
from edgeseg.evidence import Gates
from edgeseg.manifest import records
from edgeseg.parity import RunLogits, nchw_runner
from edgeseg.preprocess import to_input
from edgeseg.transport import pack, transport_sizes
from edgeseg.types import Array, Bundle

RATIOS = (0.0, 0.5, 0.9)
GATED_STILL = ("logit_error_max", "small_share")
NO_GATES = "[gates]\n" + "".join(f"{f.name} = false\n" for f in fields(Gates) if f.name not in GATED_STILL)


def untrained(module: torch.nn.Module, name: str, **callbacks: object) -> None:
    """In place of fine-tuning."""


def bundle_with_zeros(ratio: float, work: Path) -> Bundle:
    """A bundle of all artifacts of the embedded checkpoint with this share of zeros, whatever they lose by it."""
    module, info = load_checkpoint(samples.CHECKPOINT)
    if ratio:
        example = torch.zeros(1, info.preprocess.channels, info.preprocess.height, info.preprocess.width)
        options = Sparsify(ratio=ratio, adaptation_frames=0)
        module = sparsify(module, example, options, fine_tune=untrained, batches=list)[0]  # type: ignore[assignment]
    name = f"zeros-{ratio:.0%}".rstrip("%")
    save_checkpoint(work / f"{name}.safetensors", module, info.preprocess, info.classes, info.training)
    (work / "recipe.toml").write_text(NO_GATES)
    arguments: list[str | Path] = [
        "--calibration",
        samples.FRAMES,
        "--recipe",
        work / "recipe.toml",
        "-o",
        work / f"{name}.edgeseg",
    ]
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "edgeseg.cli",
        "convert",
        work / f"{name}.safetensors",
        *arguments,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return open_bundle(work / f"{name}.edgeseg")


def medians_ms(bundles: Mapping[float, Bundle], pixels: Array, rounds: int) -> dict[tuple[float, str], float]:
    """Milliseconds by ratio and artifact; in every round each candidate has one untimed and three timed runs."""
    runs: dict[tuple[float, str], RunLogits] = {}
    with ExitStack() as stack:
        for ratio, bundle in bundles.items():
            for artifact in bundle.artifacts:
                session = stack.enter_context(open_session(artifact.format, artifact.path, 1)[1])
                runs[ratio, artifact.name] = nchw_runner(session.run, session.inputs, session.outputs)
        seconds: dict[tuple[float, str], list[float]] = {key: [] for key in runs}
        for _ in range(rounds):
            for key, run in runs.items():
                run(pixels)
                seconds[key] += [_seconds(run, pixels) for _ in range(3)]
    return {key: 1e3 * float(np.median(times)) for key, times in seconds.items()}


def _seconds(run: RunLogits, pixels: Array) -> float:
    start = perf_counter()
    run(pixels)
    return perf_counter() - start


def main() -> None:
    """Make the bundles, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as work:
        bundles = {r: bundle_with_zeros(r, Path(work)) for r in RATIOS}
        packed = [pack(b, f"{b.path}.tar.xz") for b in bundles.values()]
        folders = [sum(f.size_bytes for f in records(b.manifest)) for b in bundles.values()]
        sizes = [transport_sizes(b) for b in bundles.values()]
        pixels = to_input(read_folder(samples.FRAMES).samples[0].read_frame(), bundles[0.0].preprocess)
        latency = medians_ms(bundles, pixels, rounds)
    columns = ["artifact", *(f"MB at {r:.0%}" for r in RATIOS), *(f"ms at {r:.0%}" for r in RATIOS)]
    rows: list[list[Cell]] = [
        [name, *(f"{s[name] / 1e6:.2f}" for s in sizes), *(f"{latency[r, name]:.2f}" for r in RATIOS)]
        for name in sorted(sizes[0])
    ]
    for name, totals in (("all in one file", packed), ("the folder", folders)):
        rows.append([name, *(f"{total / 1e6:.2f}" for total in totals), *(None for _ in RATIOS)])
    print_table("zeros: size compressed for the download, median latency on one thread", columns, rows)


if __name__ == "__main__":
    main()
