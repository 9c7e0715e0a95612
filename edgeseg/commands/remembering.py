"""A command that keeps the words it was called with, for the documents it writes."""

from __future__ import annotations

import shlex

import click

_ARGUMENTS = "edgeseg.arguments"


class Remembering(click.Command):
    """Given as `cls` to `click.command`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep them before they are parsed."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def command_line(ctx: click.Context) -> str:
    """As it would be typed again, as in `edgeseg frontier head.edgeseg -o out`."""
    return shlex.join(["edgeseg", ctx.command.name or "", *ctx.meta[_ARGUMENTS]])
