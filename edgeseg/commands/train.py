"""`edgeseg train`: transfer learning on a frames folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeseg.commands.ranges import FiniteRange
from edgeseg.commands.sources import parse_names, parse_size, scan_area_option
from edgeseg.dataset import read_folder
from edgeseg.errors import BadInput
from edgeseg.plugins import require
from edgeseg.types import Preprocess

ARCHITECTURES = ("mobilenetv2-unet", "efficientnet-lite0-unet")
# The input statistics the ImageNet weights of each encoder were trained with; gray is their mean over the colours.
_NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mobilenetv2-unet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "efficientnet-lite0-unet": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@click.command(
    epilog="Example: edgeseg train frames -o head.safetensors --arch mobilenetv2-unet --encoder-weights imagenet.npz"
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Checkpoint, .safetensors.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), default=ARCHITECTURES[0], show_default=True)
@click.option("--edge", is_flag=True, help="The edge variant: add skips, nearest upsampling, logits at stride 4.")
@click.option("--encoder-weights", type=click.Path(path_type=Path), help=".safetensors, .npz or .pth; random without.")
@click.option("--epochs", type=click.IntRange(1), default=60, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=8, show_default=True)
@click.option("--size", default="256x256", show_default=True, help="Network input, HEIGHTxWIDTH, multiples of 32.")
@click.option("--channels", type=click.Choice(["1", "3"]), default="1", show_default=True, help="1 gray, 3 RGB.")
@click.option(
    "--classes", default="background,foreground", show_default=True, help="Names by mask index, commas between."
)
@scan_area_option
@click.option("--augmentation", type=click.Choice(["standard", "strong"]), default="standard", show_default=True)
@click.option(
    "--ema-decay",
    type=FiniteRange(0, 1, max_open=True),
    default=0.99,
    show_default=True,
    help="Of the averaged weights that are kept.",
)
@click.option("--width", type=float, default=1.0, show_default=True, help="Factor on the encoder's channels.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; all by default.")
@click.option("--seed", type=int, default=0, show_default=True)
def train(data: Path, output: Path, arch: str, edge: bool, encoder_weights: Path | None, **options: Any) -> None:
    """Train a reference segmenter on DATA (images/, masks/, index.csv with a split column).

    Progress is one line an epoch with the validation Dice; the best weights are kept. A killed run goes on where it was
    when the same command is given again.
    """
    require("train", "edgeseg train")
    if output.suffix != ".safetensors":
        raise BadInput(f"{output}: expected a name that ends in .safetensors")
    folder = read_folder(data, need_masks=True)
    height, width = parse_size(options["size"])
    channels = int(options["channels"])
    mean, std = _NORMALISATION[arch]
    if channels == 1:
        mean, std = (round(sum(mean) / 3, 4),), (round(sum(std) / 3, 4),)
    import torch

    from edgeseg.converters.fit import Epoch
    from edgeseg.converters.models.unet import EDGE
    from edgeseg.converters.train import TrainOptions
    from edgeseg.converters.train import train as run

    if options["threads"]:
        torch.set_num_threads(options["threads"])

    def report(epoch: Epoch) -> None:
        click.echo(
            f"epoch {epoch.number:3d}/{options['epochs']}  loss {epoch.loss:.4f}  val Dice {100 * epoch.val_dice:.2f}"
            f"{' *' if epoch.best else '  '}  {epoch.seconds:.1f} s"
        )

    record = run(
        folder,
        output,
        arch=arch,
        arch_options={"width": options["width"], **(EDGE if edge else {})},
        preprocess=Preprocess(height, width, channels, mean, std, scan_area=options["scan_area"]),
        classes=parse_names(options["classes"]),
        encoder_weights=encoder_weights,
        options=TrainOptions(**{k: options[k] for k in ("epochs", "batch_size", "augmentation", "ema_decay", "seed")}),
        report=report,
    )
    click.echo(f"{output}: val Dice {100 * record['val_dice']:.2f} at epoch {record['best_epoch']}")
