"""`edgeseg hil report`: boards and bundles side by side, from station records."""

from __future__ import annotations

from pathlib import Path

import click

from edgeseg import plugins
from edgeseg.commands.json_file import write_json
from edgeseg.errors import BadInput


@click.command(
    epilog="Example:  edgeseg hil report station nightly -o report.html",
    short_help="Compare boards and bundles on one page.",
)
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="RECORD...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The page, .html.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the comparison as data too: see docs/json.md.",
)
def report(records: tuple[Path, ...], output: Path, json_path: Path | None) -> None:
    """Compare boards and bundles in one page that needs nothing else.

    RECORD is a record.jsonl of `edgeseg hil run`, its folder, or a folder of such folders. Of several results of a
    bundle on a board the newest counts, the others are history. The page says what passed; whether everything did is
    the exit code of `edgeseg hil run`, not of this command.
    """
    plugins.require("report", "writing a report")
    from edgeseg.durable import new_file
    from edgeseg.hil_report.merging import compare, find_records
    from edgeseg.hil_report.page import page
    from edgeseg.hil_report.sections import headline

    inputs = {path.resolve() for path in find_records(records)}
    for target in filter(None, (output, json_path)):
        if target.resolve() in inputs:
            raise BadInput(f"{target} is one of the records: choose another file to write")
    comparison = compare(records)
    text = page(comparison)
    if json_path:
        write_json(json_path, comparison)
    try:
        with new_file(output) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {error.strerror}") from error
    click.echo(headline(comparison))
    click.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
