"""Multiply-accumulates of a layer from the shapes that an engine reports, whatever their layout."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = Sequence[int]


def convolution_macs(inputs: Shape, weights: Shape, outputs: Shape, *, transposed: bool = False) -> int:
    """Multiply-accumulates of a convolution; those with padding count, as engines compute them.

    Every value of the output (of the input where transposed) meets one slice of the weights.

    Args:
        inputs, outputs: [N, C, ...] or [N, ..., C].
        weights: [O, I / groups, ...]; [groups, O / groups, I / groups, ...] where they have one axis more than the
            output; with I and O exchanged where transposed.
        transposed: for a transposed convolution.
    """
    leading = 2 if len(weights) > len(outputs) else 1
    return prod(inputs if transposed else outputs) * prod(weights[leading:])


def product_macs(inputs: Shape, outputs: Shape) -> int:
    """Multiply-accumulates of a matrix product [..., M, K] x [..., K, N] from the left factor and the result."""
    return prod(outputs) * inputs[-1]
