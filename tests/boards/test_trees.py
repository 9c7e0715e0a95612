"""Every tree is told for what it is. They are made from public documentation: see the source in each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeseg.boards.detect import detect
from edgeseg.boards.profile import GENERIC, profiles
from edgeseg.boards.telemetry import Telemetry

TREES = Path(__file__).parent / "trees"
NAMES = [path.stem for path in TREES.glob("*.toml")]


def test_a_board_is_told(board_name: str, unpack: Callable[[str], Path], described: Callable[[str], dict]) -> None:
    tree = described(board_name)
    expected = tree["expect"]
    board = detect(unpack(board_name), profiles())
    assert board.profile == expected.pop("profile")
    note = expected.pop("note", None)
    assert note is None or any(note in said for said in board.notes)
    accelerators = expected.pop("accelerators", None)
    assert accelerators is None or [f"{a.kind} {a.name}" for a in board.accelerators] == accelerators
    assert {name: getattr(board, name) for name in expected} == expected
    assert board.memory_bytes == expected.get("memory_bytes", tree["memory_kb"] << 10)
    assert (board.profile == GENERIC) == any("stands in" in said for said in board.notes)
    assert msgspec.json.encode(board)


def test_a_tree_says_where_it_is_from(board_name: str, described: Callable[[str], dict]) -> None:
    tree = described(board_name)
    assert len(tree["source"]) > 20
    assert tree["recorded"] is False
    assert "not recorded on hardware" in (TREES / f"{board_name}.toml").read_text().splitlines()[0]


def test_every_profile_has_a_tree(described: Callable[[str], dict]) -> None:
    told = {described(name)["expect"]["profile"] for name in NAMES}
    assert len(NAMES) >= 20
    # A stick is no board: its tree is that of a machine it is plugged into.
    assert {name for name, profile in profiles().items() if not profile.refused} == told


def test_what_a_tree_lets_one_measure(board_name: str, unpack: Callable[[str], Path]) -> None:
    root = unpack(board_name)
    with Telemetry(root) as telemetry:
        reading = telemetry.read()
    assert (reading.temperature_c is not None) == any(root.glob("sys/class/thermal/thermal_zone*/temp"))
    assert (reading.clock_mhz is not None) == any(root.glob("sys/devices/system/cpu/cpufreq/policy*"))
    assert reading.memory_available_bytes is not None
    assert reading.load == 0.5
