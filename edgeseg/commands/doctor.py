"""`edgeseg doctor`: what is wrong on this board, and how to fix it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec

from edgeseg.boards.detect import describe, detect
from edgeseg.boards.doctor import examine
from edgeseg.boards.findings import Finding, Machine, Severity, current_process
from edgeseg.boards.profile import Profile, profile_folders, profiles
from edgeseg.boards.telemetry import Reading, Telemetry
from edgeseg.commands.boards import profiles_option
from edgeseg.commands.engine_probe import engine_states
from edgeseg.commands.json_file import write_json
from edgeseg.errors import BoardError

_LIVE = Path("/")
_WATCH_S = 0.5  # counters of throttling tell of what happens between two readings
_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@click.command(
    epilog="Example:  edgeseg doctor --json doctor.json",
    short_help="Explain what is wrong on this board, and how to fix it.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as JSON too.")
@profiles_option
def doctor(json_file: Path | None, folder: Path | None) -> int:
    """Explain what is wrong on this board, and how to fix it.

    Every engine runs a tiny model in a process of its own; the rest is read from /proc and /sys. The exit code is 1
    where there are errors, 0 where there are warnings and notes only.
    """
    machine = examined(_LIVE, folder)
    findings = examine(machine)
    if json_file is not None:
        _write_json(json_file, machine, findings)
    _show(machine, findings)
    return 1 if any(finding.severity is Severity.ERROR for finding in findings) else 0


def examined(root: Path, folder: Path | None) -> Machine:
    """Everything that the checks look at, of the machine whose root is given."""
    known, error = _profiles(folder)
    board = detect(root, known)
    return Machine(
        root=root,
        board=board,
        profile=known[board.profile],
        process=current_process(),
        engines=engine_states(),
        reading=_reading(root),
        profile_error=error,
    )


def _profiles(folder: Path | None) -> tuple[Mapping[str, Profile], str]:
    folders = profile_folders(folder)
    try:
        return profiles(folders), ""
    except BoardError as error:
        return profiles(), str(error)


def _reading(root: Path) -> Reading:
    with Telemetry(root) as telemetry:
        time.sleep(_WATCH_S)
        return telemetry.read()


def _show(machine: Machine, findings: Sequence[Finding]) -> None:
    click.echo(describe(machine.board))
    click.echo(f"  profile: {machine.board.profile} ({machine.profile.title})")
    for finding in findings:
        click.echo(f"\n{click.style(finding.severity, fg=_STYLES[finding.severity])}: {finding.what} [{finding.code}]")
        click.echo(f"  why: {finding.why}")
        click.echo(f"  fix: {finding.fix}")
    counts = Counter(finding.severity for finding in findings)
    told = [f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in Severity if counts[s]]
    click.echo(f"\n{', '.join(told) or 'nothing is wrong'}")


def _write_json(path: Path, machine: Machine, findings: Sequence[Finding]) -> None:
    document = {
        "schema": 1,
        "board": describe(machine.board),
        "profile": machine.board.profile,
        "errors": sum(finding.severity is Severity.ERROR for finding in findings),
        "warnings": sum(finding.severity is Severity.WARNING for finding in findings),
        "findings": [msgspec.to_builtins(finding) for finding in findings],
        "engines": [msgspec.to_builtins(engine) | {"works": engine.works} for engine in machine.engines],
    }
    write_json(path, document)
