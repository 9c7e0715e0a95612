"""Ranges of numbers that options take."""

from __future__ import annotations

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A range without nan, which is outside of no range by comparison, and without inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as every range, and refuse what is no finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


POSITIVE = FiniteRange(min=0, min_open=True)
SMOOTHING = FiniteRange(min=0, max=1, max_open=True)
