"""The options that `edgeseg stream` and `edgeseg soak` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgeseg.commands.isolation import isolate_option
from edgeseg.commands.keys import key_option
from edgeseg.commands.profile_plan import profile_option
from edgeseg.commands.ranges import POSITIVE
from edgeseg.plugins import RUNTIMES
from edgeseg.types import Precision


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What the shared options ask for."""

    bundle: Path
    source: str
    rate_hz: float | None
    deadline_ms: float | None
    links: tuple[str, ...]
    threads: int
    self_test: bool
    isolate: bool
    real_time: bool
    trusted: tuple[Path, ...]
    profile: str | None = None


def stream_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add BUNDLE, SOURCE and the options of StreamRequest."""
    options = (
        click.argument("bundle", type=click.Path(path_type=Path)),
        click.argument("source"),
        click.option(
            "--fps",
            "rate_hz",
            type=POSITIVE,
            metavar="HZ",
            help="Replay at this rate; by default at the source's own.",
        ),
        click.option(
            "--deadline",
            "deadline_ms",
            type=POSITIVE,
            metavar="MS",
            help="From a frame's capture to its result; by default the time between two frames.",
        ),
        click.option(
            "--link",
            "links",
            multiple=True,
            metavar="RUNTIME[:PRECISION[:DEVICE]]",
            callback=_check_links,
            help="First choice; repeated, what takes over when it fails. By default the fastest of every engine.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            metavar="N",
            help="CPU threads of each engine.",
        ),
        click.option(
            "--self-test/--no-self-test",
            default=True,
            help="Run the golden frames on each engine first; on by default.",
        ),
        isolate_option(False, "Run each engine in a process of its own, in a sandbox; off by default."),
        click.option(
            "--rt", "real_time", is_flag=True, help="Real-time scheduling and locked memory, as far as permitted."
        ),
        key_option,
        profile_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _check_links(ctx: click.Context, param: click.Parameter, links: tuple[str, ...]) -> tuple[str, ...]:
    for link in links:
        runtime, *rest = link.split(":", 2)
        if runtime not in RUNTIMES:
            raise click.BadParameter(f"unknown runtime {runtime!r} in {link!r}, expected one of {', '.join(RUNTIMES)}")
        if rest and rest[0] not in (*Precision, ""):
            expected = ", ".join(Precision)
            raise click.BadParameter(f"unknown precision {rest[0]!r} in {link!r}, expected one of {expected}")
    return links
