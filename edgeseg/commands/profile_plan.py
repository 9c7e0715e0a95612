"""`--profile`: a board's profile decides which engines run, in which order, with how many threads and which options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from edgeseg import plugins
from edgeseg.commands.rows import Row
from edgeseg.engine_options import Plan
from edgeseg.errors import BadInput

_THIS_BOARD = "auto"


def profile_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --profile."""
    return click.option(
        "--profile",
        metavar="NAME",
        help="Engines, threads and options as this board's profile says; auto is the board that this is.",
    )(command)


def planned(name: str | None) -> Plan:
    """The plan of the profile asked for, empty without one; --threads on the command line counts before its own.

    Raises:
        UsageError: there is no such profile.
        BoardError: a profile is malformed, or edgeseg does not run on that board.
    """
    if name is None:
        return ()
    plan = _profile_plan(name)
    context = click.get_current_context()
    if context.get_parameter_source("threads") is ParameterSource.COMMANDLINE:
        return [replace(choice, threads=context.params["threads"]) for choice in plan]
    return plan


def unverified(rows: Iterable[Row]) -> list[str]:
    """A line for each device that something ran on and that edgeseg itself was never run on."""
    ran = dict.fromkeys((row.runtime, row.device) for row in rows if row.runtime in plugins.RUNTIMES)
    return [
        f"{name} {device}: not verified on hardware by edgeseg: trust what `edgeseg verify --no-isolate` says here"
        for name, device in ran
        if device in getattr(plugins.runtime(name), "unverified", ())
    ]


def _profile_plan(name: str) -> Plan:
    from edgeseg.boards.detect import detect
    from edgeseg.boards.profile import profile, profile_folders, profiles

    known = profiles(profile_folders())
    try:
        return profile(detect(known=known).profile if name == _THIS_BOARD else name, known).plan
    except BadInput as error:
        raise click.BadParameter(str(error), param_hint="'--profile'") from error
