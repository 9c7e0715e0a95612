"""A number that an option takes is a finite one, wherever an option takes one."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.commands.ranges import FiniteRange


def options(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner, (*words, name))
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield words, parameter


def test_no_option_takes_a_range_that_lets_nan_through() -> None:
    loose = [
        (words, option.name)
        for words, option in options(main)
        if isinstance(option.type, click.FloatRange) and not isinstance(option.type, FiniteRange)
    ]
    assert loose == []


@pytest.mark.parametrize(
    "words",
    [
        ("hil", "run", "--wait", "nan", "head.edgeseg"),
        ("hil", "emulate", "up", "slow", "--cpus", "inf"),
        ("convert", "--limit-time", "nan"),
        ("train", "--ema-decay", "nan"),
        ("frontier", "--worst-dice", "nan"),
    ],
)
def test_nan_is_bad_usage(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "is no finite number" in done.output
