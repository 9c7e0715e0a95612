"""`edgeseg unpack`: the one compressed file as a bundle again."""

from __future__ import annotations

from pathlib import Path

import click

from edgeseg.commands.keys import key_option
from edgeseg.commands.pack import describe_folder
from edgeseg.transport import unpack


@click.command("unpack", epilog="Example: edgeseg unpack head.tar.xz -o head.edgeseg")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle folder to write.")
@key_option
def unpack_bundle(file: Path, output: Path, trusted: tuple[Path, ...]) -> None:
    """Turn FILE, made by `edgeseg pack`, into a bundle folder again.

    The folder appears whole, every file with the size and SHA-256 of the manifest, or not at all.
    """
    bundle = unpack(file, output, trusted_keys=trusted or None)
    click.echo(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    click.echo(f"{output}: {describe_folder(bundle)}, each as its manifest says")
