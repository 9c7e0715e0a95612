"""How many channels stay in each branch of a network, always in multiples that int8 kernels like."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

Widths = dict[str, int]
"""Channels that stay, by branch."""

HIGHEST_RATIO = 0.95  # of channels, where a target asks for as much as it takes
_GLOBAL_LEAST = 0.1  # share of its channels that every branch keeps, however little they matter


def nearest_multiple(size: int, wanted: float, round_to: int) -> int:
    """The multiple of `round_to` nearest to `wanted`, a tie down; at least one, and no more than `size` holds.

    A branch of fewer channels than `round_to` stays as it is.
    """
    if size < round_to:
        return size
    multiples = math.ceil(wanted / round_to - 0.5)
    return min(max(multiples, 1), size // round_to) * round_to


def same_share(sizes: Mapping[str, int], ratio: float, round_to: int) -> Widths:
    """The same share leaves every branch."""
    return {name: nearest_multiple(size, size * (1 - ratio), round_to) for name, size in sizes.items()}


def least_important(importance: Mapping[str, Tensor], ratio: float, round_to: int) -> Widths:
    """What matters least leaves, wherever it is, a multiple of channels at a time.

    Args:
        importance: by branch [channels]; comparable between branches.
        ratio: share of all channels to remove.
        round_to: of the counts that stay.
    """
    sizes = {name: len(values) for name, values in importance.items()}
    portions: list[tuple[float, str, int]] = []
    for name, values in importance.items():
        ascending = values.sort().values
        least = nearest_multiple(sizes[name], sizes[name] * _GLOBAL_LEAST, round_to)
        start, stop = 0, sizes[name] % round_to or round_to
        while sizes[name] - stop >= least:
            portions.append((float(ascending[start:stop].mean()), name, stop - start))
            start, stop = stop, stop + round_to
    excess = ratio * sum(sizes.values())
    widths = dict(sizes)
    for _, name, count in sorted(portions, key=lambda portion: portion[0]):
        if excess < count / 2:
            break
        widths[name] -= count
        excess -= count
    return widths


def of_round(sizes: Mapping[str, int], final: Widths, number: int, rounds: int, round_to: int) -> Widths:
    """Where round `number` of `rounds` ends, so that each takes the same number of channels."""
    return {
        name: width
        if number == rounds or width == sizes[name]
        else nearest_multiple(sizes[name], sizes[name] - (sizes[name] - width) * number / rounds, round_to)
        for name, width in final.items()
    }


def smallest_ratio(cost: Callable[[float], float], limit: float, trials: int) -> float:
    """The smallest ratio whose cost is within a limit, by bisection; HIGHEST_RATIO where none is.

    Args:
        cost: falls as the ratio grows.
        limit: of the cost.
        trials: how often the cost is asked for, at most.
    """
    low, high = 0.0, HIGHEST_RATIO
    if cost(high) > limit:
        return high
    for _ in range(trials - 1):
        middle = (low + high) / 2
        if cost(middle) <= limit:
            high = middle
        else:
            low = middle
    return high
