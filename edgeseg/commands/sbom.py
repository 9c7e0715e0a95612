"""`edgeseg sbom`: the software bill of materials of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgeseg.bundle import open_bundle
from edgeseg.commands.measuring import in_a_folder
from edgeseg.durable import write_file
from edgeseg.sbom import bill_of_materials, gaps


@click.command(epilog="Example: edgeseg sbom head.edgeseg -o head.cdx.json")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    callback=in_a_folder,
    help="The file to write; standard output by default.",
)
def sbom(bundle: Path, output: Path | None) -> None:
    """Write what BUNDLE is made of, as CycloneDX 1.6 in JSON.

    Artifacts, source, data and packages with their hashes, versions and licences; how one was made of the other; and
    what is known against the engines. Equal bundles give equal bytes. Where the manifest does not tie everything
    together by hash, a line on standard error says what is missing.
    """
    opened = open_bundle(bundle)
    document = bill_of_materials(opened)
    if output is None:
        click.echo(document.decode(), nl=False)
    else:
        write_file(output, document)
    for gap in gaps(opened.manifest):
        click.echo(f"not tied by hash: {gap}", err=True)
