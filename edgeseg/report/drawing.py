"""A distribution of latency as a small drawing: every sample, and the share of samples below each time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from edgeseg.evidence import Latency

WIDTH, HEIGHT = 300, 54
_TOP, _BOTTOM, _STRIP = 4.0, 38.0, 50.0
_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis that drawings have in common, in ms."""

    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Scale | None:
        """From the smallest to the largest of all samples, each above 0; None where there is none."""
        if not samples:
            return None
        return cls(min(samples) / 1.06, max(samples) * 1.06)

    def x(self, value_ms: float) -> float:
        """Where a time is, in pixels."""
        return WIDTH * math.log(value_ms / self.low) / math.log(self.high / self.low)

    @property
    def ticks(self) -> list[float]:
        """1, 2 and 5 of every decade within the axis, or its ends where there are none."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        within = [step * 10.0**d for d in decades for step in _STEPS if self.low <= step * 10.0**d <= self.high]
        return within or [self.low, self.high]


def axis(scale: Scale) -> str:
    """The axis as SVG, for the head of the column."""
    marks = []
    for tick in scale.ticks:
        x = scale.x(tick)
        anchor = "start" if x < 12 else "end" if x > WIDTH - 12 else "middle"
        marks.append(
            f'<path class="tick" d="M{x:.1f} 14v4"/><text x="{x:.1f}" y="11" text-anchor="{anchor}">{tick:g}</text>'
        )
    return f'<svg class="axis" viewBox="0 0 {WIDTH} 18" aria-hidden="true" focusable="false">{"".join(marks)}</svg>'


def distribution(name: str, run_ms: Sequence[float], scale: Scale) -> str:
    """All samples of one name as ticks, and their cumulative distribution above, as SVG with a description."""
    samples = sorted(run_ms)
    latency = Latency.of(np.array(samples) / 1e3)
    text = (
        f"Latency of {name}: {len(samples)} samples from {samples[0]:.3g} to "
        f"{samples[-1]:.3g} ms, half of them at most {latency.p50_ms:.3g} ms, 90 % at most {latency.p90_ms:.3g} ms, "
        f"99 % at most {latency.p99_ms:.3g} ms."
    )
    grid = "".join(f'<path class="grid" d="M{scale.x(t):.1f} {_TOP}V{_STRIP}"/>' for t in scale.ticks)
    ticks = "".join(f"M{scale.x(s):.1f} {_BOTTOM + 3}V{_STRIP}" for s in samples)
    marks = "".join(
        f'<circle class="mark" cx="{scale.x(value):.1f}" cy="{_y(share):.1f}" r="2.6"/>'
        for value, share in ((latency.p50_ms, 0.5), (latency.p90_ms, 0.9), (latency.p99_ms, 0.99))
    )
    return (
        f'<svg class="distribution" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" focusable="false">'
        f"<title>{escape(text)}</title>{grid}"
        f'<path class="strip" d="{ticks}"/><path class="curve" d="{_curve(samples, scale)}"/>{marks}</svg>'
    )


def _curve(samples: Sequence[float], scale: Scale) -> str:
    """Steps upwards, one a sample."""
    parts = [f"M{scale.x(samples[0]):.1f} {_y(0):.1f}"]
    for index, sample in enumerate(samples, 1):
        parts.append(f"H{scale.x(sample):.1f}V{_y(index / len(samples)):.1f}")
    return "".join(parts)


def _y(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)
