"""`edgeseg pack`: a bundle as one compressed file."""

from __future__ import annotations

from pathlib import Path

import click

from edgeseg.bundle import open_bundle
from edgeseg.commands.progress import progress
from edgeseg.errors import BadInput
from edgeseg.manifest import MANIFEST, SIGNATURE, records
from edgeseg.transport import SUFFIX, pack
from edgeseg.types import Bundle


@click.command("pack", epilog="Example: edgeseg pack head.edgeseg -o head.tar.xz")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help=f"The file to write; BUNDLE{SUFFIX} by default.")
def pack_bundle(bundle: Path, output: Path | None) -> None:
    """Write BUNDLE as one compressed file, for the way to a device.

    The commands run, verify, bench, install and unpack take that file as they take the folder. Signatures come along.
    Equal bundles give equal files.
    """
    if bundle.is_file():
        raise BadInput(f"{bundle} is a file, expected a bundle folder: it may be packed already")
    opened = open_bundle(bundle)
    target = output or bundle.resolve().with_name(bundle.resolve().name + SUFFIX)
    click.echo(f"{bundle}: {describe_folder(opened)}")
    with progress("packing", sum(1 for _ in records(opened.manifest))) as advance:
        size = pack(opened, target, advance=advance)
    click.echo(f"{target}: {size / 1e6:.2f} MB, {size / _size(opened):.1%} of the folder")


def describe_folder(bundle: Bundle) -> str:
    """Number and size of a bundle's files, for people."""
    count = len(_own(bundle)) + sum(1 for _ in records(bundle.manifest))
    return f"{count} files, {_size(bundle) / 1e6:.2f} MB"


def _own(bundle: Bundle) -> list[Path]:
    """The files that no manifest lists: itself, and the signatures where there are any."""
    return [path for name in (MANIFEST, SIGNATURE) if (path := bundle.path / name).is_file()]


def _size(bundle: Bundle) -> int:
    return sum(r.size_bytes for r in records(bundle.manifest)) + sum(path.stat().st_size for path in _own(bundle))
