"""A calmer mask from frame to frame: exponential smoothing of each pixel's class probabilities."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import BadInput
from edgeseg.types import Mask

Confidence = NDArray[np.float32]


class Smoother:
    """Exponential smoothing (Brown 1956; Roberts, Technometrics 1, 1959) of probabilities: s = w s + (1 - w) p.

    A frame that is k frames old counts with (1 - w) w^k. The first frame, and the first one of another size or number
    of classes, is taken as it is. Used by one thread at a time; after the first frame only the mask is allocated.

    Attributes:
        weight: w, of the past; 0 is no smoothing.
        delay_frames: by how many frames a sharp, certain edge that moves comes late at most: floor(ln 0.5 / ln w).
        confidence: [K, H, W] float32, the smoothed probabilities after the last `update`, which the next one
            overwrites; None before the first.
    """

    def __init__(self, weight: float) -> None:
        """Prepare a smoother. Raises BadInput unless 0 <= weight < 1."""
        if not 0 <= weight < 1:
            raise BadInput(f"weight of smoothing is {weight}, expected 0 (none) to below 1")
        self.weight = weight
        self.delay_frames = math.floor(math.log(0.5) / math.log(weight)) if weight > 0 else 0
        self.confidence: Confidence | None = None
        self._best = np.empty(0, np.float32)
        self._wins = np.empty(0, np.uint8)

    def update(self, confidence: Confidence) -> Mask:
        """Take the next frame in.

        Args:
            confidence: [K, H, W] float32 probabilities of the K >= 2 classes, finite; it is not changed or kept.

        Returns:
            [H, W] uint8, the class of the largest smoothed probability, the lowest of equals; 0 is the background.

        Raises:
            BadInput: it has another dtype or rank, or fewer than two classes.
        """
        if confidence.dtype != np.float32 or confidence.ndim != 3 or len(confidence) < 2:
            shape = f"{confidence.dtype} of shape {confidence.shape}"
            raise BadInput(f"confidence is {shape}, expected float32 [K, H, W] with at least two classes")
        state = self.confidence
        if state is None or state.shape != confidence.shape:
            state = self._restart(confidence)
        else:
            for past, now in zip(state, confidence, strict=True):
                cv2.addWeighted(past, self.weight, now, 1 - self.weight, 0, dst=past)
        return self._decide(state)

    def reset(self) -> None:
        """Forget what was: the next frame is taken as it is."""
        self.confidence = None

    def _restart(self, confidence: Confidence) -> Confidence:
        self.confidence = confidence.copy()
        self._best = np.empty(confidence.shape[1:], np.float32)
        self._wins = np.empty(confidence.shape[1:], np.uint8)
        return self.confidence

    def _decide(self, state: Confidence) -> Mask:
        mask: Mask = (state[1] > state[0]).view(np.uint8)
        if len(state) > 2:
            cv2.max(state[0], state[1], dst=self._best)
        for index in range(2, len(state)):
            cv2.compare(state[index], self._best, cv2.CMP_GT, dst=self._wins)
            # The largest index so far: where it wins, it is also the maximum of the two.
            np.bitwise_and(self._wins, np.uint8(index), out=self._wins)
            cv2.max(mask, self._wins, dst=mask)
            cv2.max(state[index], self._best, dst=self._best)
        return mask
