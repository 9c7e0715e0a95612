"""`edgeseg verify`: prove a bundle against its source's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeseg.bundle import open_bundle
from edgeseg.commands.candidates import load_candidates, torch_candidates
from edgeseg.commands.isolation import isolate_option, isolated
from edgeseg.commands.keys import describe_signer, key_option
from edgeseg.commands.measuring import (
    compare_candidates,
    measuring_options,
    self_test_candidates,
)
from edgeseg.commands.profile_plan import planned, profile_option, unverified
from edgeseg.commands.rows import Report, findings, intervals, print_rows, untested
from edgeseg.errors import BadInput
from edgeseg.keys import now
from edgeseg.trust import check_current, trusted_keys


@click.command(
    epilog="Example: edgeseg verify head.edgeseg; with frames: "
    "edgeseg verify head.edgeseg --data frames --json verify.json"
)
@click.argument("bundle", type=click.Path(path_type=Path))
@key_option
@measuring_options
@profile_option
@click.option("--threads", type=click.IntRange(1), help="CPU threads; the engines' own choice by default.")
@isolate_option(None, "Run each engine in a process of its own; by default where no trusted key signed BUNDLE.")
def verify(
    bundle: Path,
    trusted: tuple[Path, ...],
    data: Path | None,
    split: str | None,
    runtimes: tuple[str, ...],
    device: str,
    profile: str | None,
    threads: int | None,
    json_path: Path | None,
    source: str | None,
    isolate: bool | None,
    **options: Any,
) -> int:
    """Check every file of BUNDLE, run every artifact on every runtime present, hold the differences against the gates.

    Where keys are given, one of them must have signed BUNDLE and not have expired; this is checked before all else.
    Without --data it is the self-test, in seconds: the golden frames must be prepared, executed and segmented as they
    were at conversion, within the tolerances recorded for each runtime; what is wrong is named. With --data the gates
    on those frames as well.
    """
    from edgeseg.boards.detect import describe

    keys = trusted_keys(trusted or None)
    opened = open_bundle(bundle, trusted_keys=keys and keys.values())
    check_current(opened.signer, keys or {}, now(), str(bundle))
    if opened.signer:
        click.echo(f"{bundle}: {describe_signer(opened.signer)}")
    if source and not data:
        raise BadInput("--source needs --data: the golden frames already have the source's results")
    apart, plan = isolated(isolate, opened), planned(profile)
    with load_candidates(opened, runtimes, device, threads, apart, plan) as (candidates, missing):
        report = Report(str(bundle), describe())
        baselines = torch_candidates(source, options, opened, threads) if source else []
        compare_candidates(opened, candidates, baselines, report, data, split)
        self_test_candidates(opened, candidates, alone=data is None)
    report.rows += missing
    if json_path:
        report.write(json_path)
    print_rows(f"{opened.manifest.name}: against {report.reference}", report.rows)
    for line in (*findings(report.rows), *intervals(report.rows), *unverified(report.rows)):
        click.echo(line)
    if data and (gaps := untested(report.rows)):
        click.echo(gaps)
    failed = [r for r in report.rows if r.passed is False]
    passed = [r for r in report.rows if r.passed]
    absent = sum(r.passed is None and r.format != "torch" for r in report.rows)
    click.echo(f"{len(passed)} passed, {len(failed)} failed, {absent} not run here")
    return 1 if failed or not passed else 0
