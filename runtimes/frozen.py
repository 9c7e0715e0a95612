"""Whether the picture stands still."""

from __future__ import annotations

import numpy as np

from edgeseg.types import Frame


class FreezeDetector:
    """Tells for how long a picture has not changed.

    Args:
        freeze_s: how long that has to be to count.
    """

    def __init__(self, freeze_s: float = 0.5) -> None:
        self._freeze_s = freeze_s
        self._still_since: float | None = None
        self._sample: Frame | None = None

    def update(self, frame: Frame, clock_s: float) -> float:
        """For how long the picture has been the same, in s; 0 where that is less than `freeze_s`."""
        step = max(1, frame.shape[0] // 64)
        sample = frame[::step, ::step].copy()
        same = self._sample is not None and np.array_equal(sample, self._sample)
        self._sample = sample
        if not same or self._still_since is None:
            self._still_since = clock_s
        still = clock_s - self._still_since
        return still if still >= self._freeze_s else 0.0
