"""docs/fleet.md says what is so."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from edgeseg import errors
from edgeseg.boards.fleet.names import BOARD_TAG
from edgeseg.boards.hil.environment import BoardEntry, Fleet, read_environment
from edgeseg.commands.hil_fleet import fleet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "fleet.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_examples_are_environments(tmp_path):
    lab, kind = (text for language, text in BLOCKS if language == "toml")
    (tmp_path / "lab.toml").write_text(lab)
    (tmp_path / "kind.toml").write_text(kind)
    carts = read_environment(tmp_path / "lab.toml").boards
    assert [(cart.place, cart.coordinator) for cart in carts] == [(n, "127.0.0.1:20408") for n in ("cart-1", "cart-2")]
    (any_orin,) = read_environment(tmp_path / "kind.toml").boards
    assert any_orin.filter == {BOARD_TAG: carts[0].profile}
    assert set(any_orin.host_keys) == {"cart-1", "cart-2"}


@pytest.mark.parametrize("line", re.findall(r"^edgeseg hil fleet .*", TEXT, re.MULTILINE))
def test_every_command_is_one(line):
    name, *words = line.split()[3:]
    command = fleet.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    command.make_context(name, words)


def test_every_error_and_key_is_one():
    table = TEXT.split("## What goes wrong")[1].split("## ")[0]
    for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE):
        assert issubclass(getattr(errors, name), errors.EdgesegError)
    table = TEXT.split("## What a board of a fleet says")[1].split("\n\n")[1]
    keys = {key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)", row)}
    assert keys <= set(BoardEntry.__struct_fields__)
    assert {"coordinator", "host_keys"} == set(Fleet.__struct_fields__)


def test_the_versions_are_those_of_the_extra():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["fleet"]
    assert f"the extra admits `{extra[0]}`" in TEXT
    assert re.search(r"Tested with labgrid ([\d.]+);", TEXT)[1] == version("labgrid")
