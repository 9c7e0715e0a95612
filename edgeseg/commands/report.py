"""`edgeseg report`: one self-contained page for whoever signs a release, and whoever finds it a year later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edgeseg import __version__, plugins
from edgeseg.bundle import open_bundle, read_papers
from edgeseg.commands.keys import describe_signer, key_option
from edgeseg.commands.measuring import engine_options, in_a_folder
from edgeseg.commands.remembering import Remembering, command_line
from edgeseg.commands.sources import source_options
from edgeseg.durable import new_file
from edgeseg.keys import now
from edgeseg.manifest import MANIFEST, parse_manifest
from edgeseg.report.check import check_page, describe
from edgeseg.report.document import Document, Known, Measured, Signing
from edgeseg.report.embedding import read_page
from edgeseg.report.verdict import passes, release
from edgeseg.trust import check_current, parse_signatures, trusted_keys
from edgeseg.types import Bundle, Manifest

_PAGES = (".html", ".htm")


@click.command(
    cls=Remembering,
    epilog="Example: edgeseg report head.edgeseg --data frames --diff last.html -o report.html; "
    "edgeseg report --check report.html",
)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), callback=in_a_folder, help="The page, .html."
)
@key_option
@click.option("--data", type=click.Path(path_type=Path), help="Frames folder; the golden frames without.")
@engine_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True, help="Turns of each artifact.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed runs a turn.")
@click.option("--source", help="Measure this source too, and compare with it; needs torch and --data.")
@click.option(
    "--frontier",
    "frontier_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A frontier.json of edgeseg frontier, to show its picture.",
)
@click.option(
    "--diff",
    "previous",
    type=click.Path(path_type=Path, exists=True),
    help="The previous release: its bundle, or its report.html, which has latencies too.",
)
@click.option(
    "--check",
    "checked",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Compute every figure of this page again from the samples in it, and do nothing else.",
)
@source_options
@click.pass_context
def report(
    ctx: click.Context,
    /,
    bundle: Path | None,
    output: Path | None,
    trusted: tuple[Path, ...],
    checked: Path | None,
    frontier_path: Path | None,
    previous: Path | None,
    **options: Any,
) -> int:
    """Measure every artifact of BUNDLE on every runtime present and write one page about it that needs nothing else.

    On it: what the bundle is, every gate with limit, value and interval, latencies, what the engines really ran, the
    best, median and worst frames with their outlines, provenance, hashes, and every raw sample, so that each figure
    can be computed again (--check). The exit code is 1 where an artifact failed; the page is written all the same.
    """
    if checked is not None:
        if bundle is not None or output is not None:
            raise click.UsageError("--check takes a page alone, no BUNDLE and no -o")
        found = check_page(checked)
        click.echo(describe(checked, found))
        return 1 if found.wrong else 0
    if bundle is None or output is None:
        raise click.UsageError("missing BUNDLE" if bundle is None else "missing -o, the page to write")
    plugins.require("report", "writing a report")
    opened = _open(bundle, trusted)
    command = command_line(ctx)
    document = _write(opened, bundle, output, command, frontier_path, previous, options)
    click.echo(release(document, document.read_manifest()))
    click.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
    return 0 if passes(document) else 1


def _open(bundle: Path, trusted: tuple[Path, ...]) -> Bundle:
    """Opened as `edgeseg verify` does. Raises SignatureError where keys are given and none of them signed it."""
    keys = trusted_keys(trusted or None)
    opened = open_bundle(bundle, trusted_keys=keys and keys.values())
    check_current(opened.signer, keys or {}, now(), str(bundle))
    return opened


def _write(
    opened: Bundle,
    bundle: Path,
    output: Path,
    command: str,
    frontier_path: Path | None,
    previous: Path | None,
    options: dict[str, Any],
) -> Document:
    """Measure, and write the page whole or not at all."""
    from edgeseg.boards.detect import describe as describe_board
    from edgeseg.commands.report_measuring import Plan, measure
    from edgeseg.frontier.document import read
    from edgeseg.frontier.judging import judge
    from edgeseg.report.page import page

    # Read before minutes of measuring, not after.
    frontier = judge(read(frontier_path)) if frontier_path else None
    earlier = _previous(previous) if previous else None
    described = _described(opened, bundle.name)
    names = ("data", "split", "runtimes", "device", "threads", "rounds", "repeats", "source")
    plan = Plan(**{name: options.pop(name) for name in names}, options=options)
    found = measure(opened, plan)
    document = replace(
        described,
        machine=describe_board(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        edgeseg=__version__,
        threads=plan.threads,
        rounds=plan.rounds,
        repeats=plan.repeats,
        frames=found.frames,
        rows=found.rows,
        anomalies=tuple(_anomalies(opened.manifest, found.rows)),
        frontier=frontier,
        previous=earlier,
    )
    text = page(document, found.pictures, found.overlays)
    with new_file(output) as stream:
        stream.write(text.encode())
    return document


def _described(opened: Bundle, name: str) -> Document:
    """A bundle that was only read: its manifest as it stands in the file, and its signatures."""
    papers = read_papers(opened.path)
    unchecked = () if papers.signature is None or opened.signer else parse_signatures(papers.signature)
    return Document(
        bundle=name,
        manifest=parse_manifest(papers.manifest, str(opened.path / MANIFEST)),
        manifest_sha256=hashlib.sha256(papers.manifest).hexdigest(),
        signing=Signing(describe_signer(opened.signer) if opened.signer else "", len(unchecked)),
    )


def _previous(path: Path) -> Document:
    """The release to compare with: the document of a page, or a bundle. Raises BadInput or BundleError."""
    if path.suffix.lower() not in _PAGES:
        return _described(open_bundle(path), path.name)
    _, document = read_page(path)
    document.read_manifest()
    return replace(document, previous=None, frontier=None, anomalies=())


def _anomalies(manifest: Manifest, rows: tuple[Measured, ...]) -> Iterator[Known]:
    """What is known of the engines as they are here, and of the converters as they were, unless ruled out."""
    from edgeseg.sbom.anomalies import known_anomalies
    from edgeseg.sbom.packages import packages

    here = {row.runtime: row.version for row in rows if row.version}
    for package in packages(manifest):
        version = here.get(package.runtime, package.version)
        for entry in known_anomalies():
            if entry.package == package.name and version and entry.status(version) != "unaffected":
                texts = (entry.kind, entry.what, entry.effect, entry.guard, entry.advice, entry.source)
                yield Known(entry.id, entry.package, version, entry.status(version), *texts)
