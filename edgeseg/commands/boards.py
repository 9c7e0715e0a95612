"""`edgeseg boards`: which boards are known, and what this machine is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from edgeseg.boards.detect import Board, describe, detect
from edgeseg.boards.profile import Figure, Profile, profile, profile_folders, profiles
from edgeseg.boards.telemetry import Reading, Telemetry
from edgeseg.commands.json_file import write_json
from edgeseg.commands.table import print_table
from edgeseg.errors import BadInput, BoardError

_GIB = 1 << 30


def profiles_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --profiles, as the parameter `folder`."""
    return click.option(
        "--profiles",
        "folder",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="A folder of your own profiles, before those of $EDGESEG_BOARDS and ~/.config/edgeseg/boards.",
    )(command)


@click.group(epilog="Example:  edgeseg boards detect --json board.json", short_help="List, show and detect boards.")
def boards() -> None:
    """List the boards edgeseg has a profile of, show one, or find out what this machine is."""


@boards.command("list", epilog="Example:  edgeseg boards list")
@profiles_option
def list_boards(folder: Path | None) -> None:
    """List the boards that have a profile, your own first."""
    rows = [
        [p.name, p.title, " ".join(p.architectures) or "any", _runtimes(p), _yes(p.verified)]
        for p in profiles(profile_folders(folder)).values()
    ]
    print_table("", ["board", "title", "architecture", "runtimes to try", "ran here"], rows)


@boards.command(
    epilog="Example:  edgeseg boards show raspberry-pi-5", short_help="Show one profile: engines, limits, figures."
)
@click.argument("name")
@profiles_option
def show(name: str, folder: Path | None) -> None:
    """Show one profile: engines worth trying, power modes, limits, and figures with their sources."""
    try:
        found = profile(name, profiles(profile_folders(folder)))
    except BadInput as error:
        raise click.UsageError(str(error)) from error
    if found.refused:
        raise BoardError(f"{found.title}: {found.refused}")
    click.echo(f"{found.title} ({found.name}, {' '.join(found.architectures) or 'any architecture'})")
    for note in found.notes:
        click.echo(f"  {note}")
    _show_engines(found)
    if found.power_modes:
        modes = [[m.name, m.watts and f"{m.watts:g} W", _yes(m.verified), m.source or None] for m in found.power_modes]
        print_table("", ["power mode", "limit", "verified", "source"], modes)
    for heading, figures in (("figure", found.figures), ("limit", found.limits)):
        if figures:
            rows = [[key, _value(f), _yes(f.verified), f.source or None] for key, f in figures.items()]
            print_table("", [heading, "value", "verified", "source"], rows)


@boards.command("detect", epilog="Example:  edgeseg boards detect --json board.json")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as JSON too.")
@profiles_option
def detect_board(json_file: Path | None, folder: Path | None) -> None:
    """Find out what this machine is.

    Cores and memory are what this process may use, within the limits of its control groups.
    """
    known = profiles(profile_folders(folder))
    board = detect(known=known)
    with Telemetry() as telemetry:
        reading = telemetry.read()
    if json_file is not None:
        _write_json(json_file, board, reading)
    click.echo(describe(board))
    accelerators = ", ".join(f"{a.kind} {a.name} ({a.driver or 'no driver'})" for a in board.accelerators)
    details = {
        "board": board.model,
        "operating system": ", ".join(p for p in (board.os, board.kernel) if p),
        "instructions": " ".join(board.flags),
        "profile": board.profile,
    }
    where_known = {
        "accelerators": accelerators,
        "Jetson Linux": board.l4t and f"{board.l4t} (JetPack {board.jetpack or 'unknown'})",
        "power mode": board.power_mode,
        "container": board.container,
        "readable now": _readable(reading),
    }
    for label, value in details.items():
        click.echo(f"  {label}: {value or 'unknown'}")
    for label, value in where_known.items():
        if value:
            click.echo(f"  {label}: {value}")
    for note in board.notes:
        click.echo(f"  note: {note}")


def _show_engines(found: Profile) -> None:
    rows = []
    for engine in found.engines:
        options = [f"{key}={str(value).lower()}" for key, value in engine.options.items()]
        threads = None if engine.threads is None else str(engine.threads)
        rows.append(
            [
                engine.runtime,
                " ".join(engine.devices),
                " ".join(engine.precisions),
                threads,
                " ".join(options) or None,
                engine.note or None,
            ]
        )
    print_table("", ["runtime", "devices", "precisions", "threads", "options", "note"], rows)


def _write_json(path: Path, board: Board, reading: Reading) -> None:
    document = {
        "schema": 1,
        "description": describe(board),
        **msgspec.to_builtins(board),
        "reading": msgspec.to_builtins(reading, str_keys=True),
    }
    write_json(path, document)


def _readable(reading: Reading) -> str:
    parts = [
        reading.power_mw is not None and f"{reading.power_mw / 1000:.1f} W",
        reading.temperature_c is not None and f"{reading.temperature_c:.0f} °C",
        reading.clock_mhz is not None and f"{reading.clock_mhz:.0f} MHz",
        reading.governor is not None and f"governor {reading.governor}",
        reading.throttled is not None and ("throttled" if reading.throttled else "not throttled"),
        reading.gpu_load is not None and f"GPU {reading.gpu_load:.0%}",
        reading.memory_available_bytes is not None and f"{reading.memory_available_bytes / _GIB:.1f} GiB free",
    ]
    return ", ".join(part for part in parts if part)


def _runtimes(found: Profile) -> str:
    return "refused" if found.refused else " ".join(engine.runtime for engine in found.engines)


def _value(figure: Figure) -> str:
    value = figure.value if isinstance(figure.value, str) else f"{figure.value:g}"
    return f"{value} {figure.unit}".strip()


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
