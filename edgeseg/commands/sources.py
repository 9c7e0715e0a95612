"""The options with which commands describe a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeseg.errors import BadInput
from edgeseg.scan_area import check_shares
from edgeseg.types import ScanArea


def scan_area_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --scan-area: which part of a frame the network sees."""
    return click.option(
        "--scan-area",
        metavar="detect|LEFT,TOP,WIDTH,HEIGHT",
        callback=_scan_area,
        help="The part of each frame that the network sees: found in the picture, or shares of the frame as in "
        "0.1,0,0.8,1; all of it by default.",
    )(command)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --weights, --size, --channels, --mean, --std, --classes and --scan-area: what a source may not say itself."""
    options = (
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            help="For a factory: .safetensors, .npz, or .pth (read with weights_only).",
        ),
        click.option(
            "--size", callback=_size, help="Network input, HEIGHTxWIDTH; 256x256 where the source does not say."
        ),
        click.option(
            "--channels",
            type=click.Choice(["1", "3"]),
            callback=_channels,
            help="1 gray, 3 RGB; the first convolution's by default.",
        ),
        click.option("--mean", callback=_figures, help="Of pixels in [0, 1], commas between channels; 0 by default."),
        click.option("--std", callback=_figures, help="Of pixels in [0, 1], commas between channels; 1 by default."),
        click.option(
            "--classes", callback=_names, help="Names by mask index, commas between; the first is the background."
        ),
        scan_area_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from `256x320` or `256`. Raises BadInput for anything else."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise BadInput(f"size is {text!r}, expected HEIGHTxWIDTH as in 256x256")
    return int(parts[0]), int(parts[-1])


def parse_names(text: str) -> tuple[str, ...]:
    """Class names from `background,head`. Raises BadInput for fewer than two, or an empty one."""
    names = tuple(name.strip() for name in text.split(","))
    if len(names) < 2 or not all(names):
        raise BadInput(f"classes are {text!r}, expected at least two names, the background first")
    return names


def parse_scan_area(text: str) -> ScanArea:
    """A scan area from `detect` or four shares as in `0.1,0,0.8,1`. Raises BadInput for anything else."""
    if text.strip().lower() == "detect":
        return ScanArea(detect=True)
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"scan area is {text!r}, expected detect, or LEFT,TOP,WIDTH,HEIGHT as in 0.1,0,0.8,1") from None
    area = ScanArea(False, left, top, width, height)
    check_shares(area)
    return area


def _scan_area(ctx: click.Context, param: click.Parameter, value: str | None) -> ScanArea | None:
    return None if value is None else parse_scan_area(value)


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    return None if value is None else parse_size(value)


def _channels(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else int(value)


def _figures(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(v) for v in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected numbers as in 0.485,0.456,0.406") from None


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else parse_names(value)
