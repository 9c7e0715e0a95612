from __future__ import annotations

import pytest

from edgeseg.boards.profile import GENERIC, decode_profile, match_profile, profile, profiles
from edgeseg.errors import BadInput, BoardError
from edgeseg.plugins import RUNTIMES


def test_every_profile_reads_and_claims_nothing_without_a_source() -> None:
    assert GENERIC in profiles()
    for found in profiles().values():
        assert found.engines
        assert all(engine.runtime in RUNTIMES for engine in found.engines)
        assert all(figure.source for figure in found.figures.values() if figure.verified)


def test_no_board_is_claimed_twice() -> None:
    claims = [c for p in profiles().values() for c in (*p.match.compatible, *p.match.cpu_model)]
    assert len(claims) == len(set(claims))


@pytest.mark.parametrize(
    "text",
    [
        "name = 1\ntitle = 'x'",
        "name = 'x'",
        "name = 'x'\ntitle = 'x'\ncolour = 'red'",
        "name = 'x'\ntitle = 'x'\n[figures.int8]\nvalue = 3\nverified = true",
        "not toml",
    ],
)
def test_a_malformed_profile_names_its_file(text: str) -> None:
    with pytest.raises(BoardError, match=r"mine\.toml is not a valid board profile"):
        decode_profile(text, "mine.toml")


@pytest.mark.parametrize(
    ("compatible", "cpu", "name"),
    [
        ((), "Intel(R) N100", "intel-n100"),
        ((), "Intel(R) Core(TM) i3-N305", "intel-n100"),
        ((), "Intel(R) Core(TM) i7-N1000", GENERIC),
        (("raspberrypi,5-model-b",), "", "raspberry-pi-5"),
        (("raspberrypi,4-model-b",), "Cortex-A72", GENERIC),
        ((), "", GENERIC),
    ],
)
def test_matching(compatible: tuple[str, ...], cpu: str, name: str) -> None:
    assert match_profile(compatible, cpu).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=f"expected one of {GENERIC}"):
        profile("abacus")
