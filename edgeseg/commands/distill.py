"""`edgeseg distill`: a small, fast student of any source."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeseg import plugins
from edgeseg.commands.compressing import compress_source, unlabelled_option, work_folder
from edgeseg.commands.sources import source_options
from edgeseg.dataset import read_folder
from edgeseg.errors import BadInput

if TYPE_CHECKING:
    from edgeseg.converters.compress import Compressed
    from edgeseg.converters.recipe import Recipe
    from edgeseg.converters.source import Source


def _figures(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    try:
        return None if value is None else tuple(int(v) for v in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected whole numbers as in 16,32,64,64") from None


@click.command(
    epilog="Example: edgeseg distill head.safetensors --data frames -o student.safetensors; then "
    "edgeseg convert student.safetensors --calibration frames -o student.edgeseg"
)
@click.argument("source")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Frames folder to learn from (its train split, if it has one).",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The checkpoint, .safetensors.")
@click.option(
    "--eval",
    "evaluation",
    type=click.Path(path_type=Path),
    help="Frames folder with masks to judge by (its val split, if it has one); --data by default.",
)
@unlabelled_option
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML with [distill], [pool] and [gates]; the options here go before it.",
)
@click.option("--widths", callback=_figures, help="Channels of the student's stages; 16,32,64,64 by default.")
@click.option("--blocks", callback=_figures, help="Residual blocks of each stage; 0,1,1,1 by default.")
@click.option("--samples", type=click.IntRange(1), help="Frames seen in training; 245760 by default.")
@click.option("--pool", type=click.IntRange(2), help="Augmented frames that the source labels; 16384 by default.")
@click.option("--latency-ms", type=float, help="Of the int8 student in OpenVINO, at most; for a search in the recipe.")
@click.option("--seed", type=int, help="0 by default.")
@source_options
def distill(
    source: str,
    data: Path,
    output: Path,
    evaluation: Path | None,
    unlabelled: tuple[Path, ...],
    recipe: Path | None,
    **options: Any,
) -> int:
    """Teach a small U-Net, laid out for int8 kernels, to do what SOURCE does; write its checkpoint.

    The source labels augmented frames once; masks are used where there are any. The exit code is 1 where the student
    has not both fewer multiply-accumulates and a lower measured latency than the source (nothing is written then, what
    was trained is kept beside the output), or fails a gate on held frames (its checkpoint is written all the same). A
    killed run goes on where it was. The defaults take an hour or two on two cores.
    """
    plugins.require("train", "edgeseg distill")
    from edgeseg.converters.recipe import Recipe, read_recipe
    from edgeseg.converters.source import SourceOptions, load_source

    if output.suffix != ".safetensors":
        raise BadInput(f"{output} must end in .safetensors")
    chosen = _with_options(read_recipe(recipe) if recipe else Recipe(), options)
    frames = read_folder(data)
    held = (read_folder(evaluation) if evaluation else frames).prefer("val", "test")
    learn = frames.prefer("train")
    click.echo(f"loading {source}")
    names = ("weights", "size", "channels", "mean", "std", "classes", "scan_area")
    teacher = load_source(source, SourceOptions(**chosen.with_scan_area({name: options[name] for name in names})))
    folder = work_folder(output)
    result = compress_source(teacher, chosen, learn, unlabelled, held, folder)

    from edgeseg.converters.quiet import quiet

    with quiet():
        from edgeseg.converters.conversion import network_parity

    parity, failed = network_parity(teacher, result.source, held, learn, chosen.gates)
    _save(output, result, teacher)
    shutil.rmtree(folder)
    hc = "" if parity.hc_increase_mm is None else f", head circumference error {parity.hc_increase_mm:+.2f} mm"
    click.echo(
        f"{output}: Dice {100 * (parity.dice or 0):.2f}, {-100 * (parity.dice_drop or 0):+.2f} points against the "
        f"source{hc}, worst frame {parity.worst_dice or 0:.3f}; {result.proof}"
    )
    if failed:
        click.echo(f"error: the student fails its gate: {failed}", err=True)
    return 1 if failed else 0


def _with_options(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    from edgeseg.converters.recipe import Distill

    if recipe.prune or recipe.sparsify:
        raise BadInput("[prune] and [sparsify] are for edgeseg convert, which takes them from the source to the bundle")
    distill = recipe.distill or Distill()
    given = {n: options[n] for n in ("samples", "seed", "latency_ms") if options[n] is not None}
    shape = {n: options[n] for n in ("widths", "blocks") if options[n] is not None}
    distill = replace(distill, **given, options={**distill.options, **shape})
    pool = recipe.pool if options["pool"] is None else replace(recipe.pool, frames=options["pool"])
    return replace(recipe, distill=distill, pool=pool)


def _save(output: Path, result: Compressed, teacher: Source) -> None:
    from edgeseg.converters.checkpoint import save_checkpoint
    from edgeseg.converters.models.edge_unet import EdgeUNet
    from edgeseg.converters.models.unet import UNet

    assert isinstance(result.module, EdgeUNet | UNet)  # as student_of built it: no recipe here prunes
    training = {"teacher": {"name": teacher.name, **teacher.origin}, **result.record}
    save_checkpoint(output, result.module, teacher.preprocess, teacher.classes, training)
