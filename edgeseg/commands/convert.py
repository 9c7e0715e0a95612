"""`edgeseg convert`: a trained model becomes a bundle of verified artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeseg import plugins
from edgeseg.commands.compressing import compress_source, open_session, unlabelled_option, work_folder
from edgeseg.commands.isolation import ContainedCommand
from edgeseg.commands.sources import source_options
from edgeseg.dataset import FrameFolder, read_folder
from edgeseg.durable import check_target
from edgeseg.errors import BadInput
from edgeseg.evidence import Parity
from edgeseg.scan_area import describe
from edgeseg.types import Format, Precision

if TYPE_CHECKING:
    from edgeseg.converters.conversion import StepReport
    from edgeseg.converters.recipe import Recipe

DEFAULT_PRECISIONS = (Precision.FP32, Precision.INT8)


@click.command(
    cls=ContainedCommand,
    epilog="Example: edgeseg convert head.safetensors --calibration frames -o head.edgeseg; "
    "your own module: edgeseg convert mypkg.models:unet --weights unet.pth --size 256x256 --mean 0.449 --std 0.226 "
    "--calibration frames -o mine.edgeseg",
)
@click.argument("source")
@click.option(
    "--calibration",
    required=True,
    type=click.Path(path_type=Path),
    help="Frames folder that sets int8 ranges (its train split, if it has one).",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle folder to write.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML with [preprocess], [distill], [prune], [sparsify], [quantize], [evaluate] and [gates]: docs/recipe.md.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice([f.value for f in Format]),
    help="Repeatable; all by default.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice([p.value for p in Precision]),
    help="Repeatable; fp32 and int8 by default.",
)
@click.option(
    "--eval",
    "evaluation",
    type=click.Path(path_type=Path),
    help="Frames folder for the gates (its val split, if it has one); the calibration folder by default.",
)
@unlabelled_option
@source_options
def convert(
    source: str,
    calibration: Path,
    output: Path,
    recipe: Path | None,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    evaluation: Path | None,
    unlabelled: tuple[Path, ...],
    **options: Any,
) -> int:
    """Turn SOURCE into a bundle: each format and precision made, measured on real frames, and kept if it passes.

    SOURCE is an edgeseg checkpoint (.safetensors), package.module:factory with --weights, a torch.export .pt2, or an
    .onnx. A recipe with [distill], [prune] or [sparsify] makes a smaller network of it first, taught by SOURCE on the
    calibration frames; it must be faster than SOURCE and within the gates, else the exit code is 1.
    """
    plugins.require("convert", "edgeseg convert")
    from edgeseg.converters.recipe import Recipe, read_recipe

    chosen = read_recipe(recipe) if recipe else Recipe()
    check_target(output)
    frames = read_folder(calibration)
    held = read_folder(evaluation) if evaluation else frames
    return convert_to_bundle(
        source,
        options,
        frames.prefer("train"),
        held.prefer("val", "test"),
        output,
        chosen,
        tuple(Format(f) for f in formats) or tuple(Format),
        tuple(Precision(p) for p in precisions) or DEFAULT_PRECISIONS,
        unlabelled,
    )


def convert_to_bundle(
    spec: str,
    options: dict[str, Any],
    calibration: FrameFolder,
    evaluation: FrameFolder,
    output: Path,
    recipe: Recipe,
    formats: tuple[Format, ...],
    precisions: tuple[Precision, ...],
    unlabelled: tuple[Path, ...] = (),
) -> int:
    """Convert and print one line a step; the exit code is 1 where an artifact was refused."""
    click.echo(f"loading {spec}")
    from edgeseg.converters.quiet import quiet
    from edgeseg.converters.source import SourceOptions, load_source

    with quiet():  # after torch, whose log handler keeps the stderr that it finds
        from edgeseg.converters import conversion
        from edgeseg.converters.plan import plan

    source = load_source(spec, SourceOptions(**recipe.with_scan_area(options)))
    steps = plan(formats, precisions, recipe)
    if unlabelled and not recipe.compresses:
        raise BadInput("--unlabelled frames are for a recipe that trains: see [distill] in docs/recipe.md")
    compressed = None
    if recipe.compresses:
        compressed = compress_source(source, recipe, calibration, unlabelled, evaluation, work_folder(output))
    calibration = calibration.spread(recipe.quantize.calibration_frames)
    evaluation = evaluation.spread(recipe.evaluate.frames)
    size = source.preprocess
    parameters = sum(p.numel() for p in source.network.parameters())
    click.echo(
        f"source {source.name}: {size.height}x{size.width}x{size.channels}, "
        f"mean {_list(size.mean)}, std {_list(size.std)}, classes {', '.join(source.classes)}, "
        f"{parameters / 1e6:.2f} M parameters"
    )
    if size.scan_area is not None:
        click.echo(f"scan area: {describe(size.scan_area)}")
    click.echo(
        f"{len(calibration)} calibration frames, {len(evaluation)} evaluation frames"
        f"{' with masks' if evaluation.has_masks else ', no masks: Dice is not gated'}"
    )
    manifest = conversion.convert(
        source,
        calibration,
        evaluation,
        output,
        wanted=[(f, p) for f in formats for p in precisions],
        steps=steps,
        recipe=recipe,
        open_session=open_session,
        compressed=compressed,
        report=_Reporter(len(steps)),
    )
    click.echo(f"{output}: {len(manifest.artifacts)} artifacts, {len(manifest.golden)} golden frames")
    for refusal in manifest.refused:
        click.echo(f"error: {refusal.format}-{refusal.precision} is not in the bundle: {refusal.reason}", err=True)
    if compressed:
        shutil.rmtree(work_folder(output))
    if compressed and compressed.missed:
        click.echo(f"error: {compressed.missed}", err=True)
    return 1 if manifest.refused or (compressed and compressed.missed) else 0


class _Reporter:
    """Prints a line for every step."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def __call__(self, step: StepReport) -> None:
        self._done += 1
        verdict = f"REFUSED: {step.reason}" if step.reason else "passed" if step.wanted else "intermediate"
        cells = (
            f"[{self._done}/{self._total}] {step.kind[0]}-{step.kind[1]:8s}".ljust(22),
            f"{step.seconds:5.1f} s",
            f"{step.artifact.size_bytes / 1e6:5.1f} MB" if step.artifact else "",
            _figures(step.parity) if step.parity else "",
            verdict,
        )
        click.echo("  ".join(cell for cell in cells if cell))


def _figures(parity: Parity) -> str:
    line = f"SQNR {parity.sqnr_db:5.1f} dB  agreement {parity.agreement:.5f}"
    return line if parity.dice is None else f"{line}  Dice {100 * parity.dice:.2f}"


def _list(figures: tuple[float, ...]) -> str:
    return "/".join(f"{f:g}" for f in figures)
