"""Command lines of edgeseg as documents show them, read the way the program reads them."""

from __future__ import annotations

import shlex

import click

from edgeseg.cli import main


def check_command_line(line: str) -> None:
    """Fail where edgeseg would not know a command or an option of the line; values are not looked at."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = main
    context = click.Context(main)
    while True:
        # Raises NoSuchOption for an option that is not there; a group leaves the words from its command on.
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        if not isinstance(command, click.Group) or not rest:
            return
        name, *words = rest
        found = command.get_command(context, name)
        assert found is not None, f"{line}: there is no command {name!r}"
        command, context = found, click.Context(found, parent=context, info_name=name)
