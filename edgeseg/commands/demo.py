"""`edgeseg demo`: the main job on the embedded sample, start to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import cv2
import numpy as np

from edgeseg import metrics, plugins, samples
from edgeseg.bundle import open_bundle
from edgeseg.dataset import FrameFolder, read_folder
from edgeseg.overlay import draw, write_image
from edgeseg.types import Bundle, Format, Frame, Mask

_TRUTH_COLOUR = (240, 228, 66)
_TILE = (400, 270)  # width, height in pixels of a picture in an overview


@click.command(epilog="Example: edgeseg demo -o demo")
@click.option("-o", "--output", default="demo", show_default=True, type=click.Path(path_type=Path, file_okay=False))
def demo(output: Path) -> int:
    """Convert the embedded fetal-head segmenter into all formats, prove and time each, and draw what they see.

    Real weights, real ultrasound (HC18, CC BY 4.0), real engines; a few minutes on two cores. Not a medical device.
    """
    plugins.require("convert", "edgeseg demo")
    from edgeseg.commands.bench import bench_bundle
    from edgeseg.commands.convert import DEFAULT_PRECISIONS, convert_to_bundle
    from edgeseg.converters.recipe import Recipe

    folder = read_folder(samples.FRAMES, need_masks=True)
    evaluation = folder.select("test")
    target = output / "head.edgeseg"
    source = str(samples.CHECKPOINT)
    formats = tuple(Format)
    click.echo(f"1. convert the embedded checkpoint: {len(formats)} formats, {len(DEFAULT_PRECISIONS)} precisions\n")
    failed = convert_to_bundle(
        source, {}, folder.select("train"), evaluation, target, Recipe(), formats, DEFAULT_PRECISIONS
    )
    click.echo(f"\n2. compare and time them in turns, torch itself among them, on {len(evaluation)} held-out frames\n")
    failed |= bench_bundle(open_bundle(target), data=samples.FRAMES, source=source, json_path=output / "bench.json")
    click.echo("\n3. its edge student, made by `edgeseg distill`: the same task in a twentieth of the work\n")
    student = output / "student.edgeseg"
    failed |= convert_to_bundle(
        str(samples.STUDENT), {}, folder.select("train"), evaluation, student, Recipe(), formats, DEFAULT_PRECISIONS
    )
    click.echo()
    failed |= bench_bundle(open_bundle(student), data=samples.FRAMES, json_path=output / "student.json")
    click.echo("\n4. run each through the one runtime API, and draw\n")
    bundle = open_bundle(target)
    draw_artifacts(bundle, evaluation, output / "artifacts.png")
    draw_frames(bundle, evaluation, output)
    click.echo("\nthe same for your own model:  edgeseg convert YOUR_MODEL --calibration YOUR_FRAMES -o mine.edgeseg")
    click.echo("a fast student of it:         edgeseg distill YOUR_MODEL --data YOUR_FRAMES -o student.safetensors")
    click.echo(f"on the device:                edgeseg run {target} YOUR_CLIP.mp4 -o overlay.mp4")
    return failed


def draw_artifacts(bundle: Bundle, frames: FrameFolder, path: Path) -> None:
    """One frame as every artifact sees it."""
    from edgeseg.plugins import ENGINE_OF
    from edgeseg.runtimes.segmenter import load

    sample = frames.samples[len(frames) // 2]
    frame, truth = sample.read_frame(), sample.read_mask()
    tiles = []
    for artifact in bundle.artifacts:
        runtime = ENGINE_OF[artifact.format]
        with load(bundle, runtime=runtime, precision=artifact.precision) as segmenter:
            mask = segmenter(frame).mask
        tiles.append(_tile(frame, mask, truth, f"{artifact.name} on {runtime}"))
    write_image(path, _grid(tiles, columns=3))
    click.echo(f"{path}: one frame as each of {len(tiles)} artifacts sees it")


def draw_frames(bundle: Bundle, frames: FrameFolder, output: Path) -> None:
    """Every frame as the fastest artifact sees it, one by one and as an overview."""
    from edgeseg.runtimes.segmenter import load

    tiles = []
    (output / "overlays").mkdir(parents=True, exist_ok=True)
    with load(bundle) as segmenter:
        for sample in frames.samples:
            frame, truth = sample.read_frame(), sample.read_mask()
            mask = segmenter(frame).mask
            dice = metrics.dice(mask, truth)
            write_image(output / "overlays" / sample.name, _overlay(frame, mask, truth))
            tiles.append(_tile(frame, mask, truth, f"{Path(sample.name).stem}   Dice {100 * dice:.1f}"))
        name = f"{segmenter.artifact.name} on {segmenter.runtime}"
    path = output / "overview.png"
    write_image(path, _grid(tiles, columns=4))
    click.echo(f"{path}: {len(tiles)} held-out frames by {name} (blue), the reference outline in yellow")


def _overlay(frame: Frame, mask: Mask, truth: Mask) -> Frame:
    canvas = draw(frame, mask)
    outlines, _ = cv2.findContours(truth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, _TRUTH_COLOUR, 1, cv2.LINE_AA)
    return canvas


def _tile(frame: Frame, mask: Mask, truth: Mask, caption: str) -> Frame:
    small = cv2.resize(_overlay(frame, mask, truth), _TILE, interpolation=cv2.INTER_AREA)
    band = np.zeros((28, _TILE[0], 3), np.uint8)
    cv2.putText(band, caption, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack((small.astype(np.uint8), band))


def _grid(tiles: Sequence[Frame], columns: int) -> Frame:
    blank = [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [*tiles, *blank]
    return np.vstack([np.hstack(rows[i : i + columns]) for i in range(0, len(rows), columns)])
