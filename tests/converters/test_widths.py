from __future__ import annotations

import pytest
import torch

from edgeseg.converters.widths import (
    HIGHEST_RATIO,
    least_important,
    nearest_multiple,
    of_round,
    same_share,
    smallest_ratio,
)


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [(96, 48, 48), (24, 12, 8), (40, 27, 24), (24, 24, 24), (24, 0.1, 8), (12, 11, 8), (20, 20, 16), (6, 3, 6)],
)
def test_nearest_multiple_of_8(size: int, wanted: float, expected: int) -> None:
    assert nearest_multiple(size, wanted, 8) == expected


def test_same_share_takes_from_every_branch() -> None:
    assert same_share({"a": 64, "b": 16}, 0.5, 8) == {"a": 32, "b": 8}


def test_least_important_takes_what_matters_least_up_to_the_share() -> None:
    importance = {"a": torch.arange(32.0), "b": torch.arange(32.0) + 100}
    assert least_important(importance, 0.25, 8) == {"a": 16, "b": 32}
    # A tenth always stays, here one multiple of 8; the rest then comes from where it matters more.
    assert least_important(importance, 0.5, 8) == {"a": 8, "b": 24}


def test_least_important_evens_out_a_count_that_is_no_multiple() -> None:
    assert least_important({"a": torch.arange(20.0), "b": torch.arange(16.0) + 100}, 0.12, 8) == {"a": 16, "b": 16}


def test_rounds_take_equal_numbers_and_end_where_they_should() -> None:
    sizes, final = {"a": 96, "b": 24}, {"a": 48, "b": 24}
    assert [of_round(sizes, final, number, 3, 8) for number in (1, 2, 3)] == [
        {"a": 80, "b": 24},
        {"a": 64, "b": 24},
        {"a": 48, "b": 24},
    ]


def test_smallest_ratio_asks_no_more_often_than_told() -> None:
    asked: list[float] = []

    def cost(ratio: float) -> float:
        asked.append(ratio)
        return 1 - ratio

    found = smallest_ratio(cost, 0.6, 8)
    assert 0.4 <= found < 0.41
    assert len(asked) == 8


def test_a_limit_out_of_reach_gives_the_highest_ratio() -> None:
    assert smallest_ratio(lambda ratio: 1 - ratio, 0.01, 8) == HIGHEST_RATIO
