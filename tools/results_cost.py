"""What results cost beside the engine: measuring, contours, smoothing and drawing of an 800x540 frame, one thread.

    python tools/results_cost.py [--rounds 40]

Every round times each of them once for a head of usual and of largest size, so that a busy moment meets all alike.
Medians and best rounds in ms.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from time import perf_counter

import cv2
import numpy as np

from edgeseg.measure import contours, measure
from edgeseg.overlay import draw, draw_confidence
from edgeseg.smoothing import Smoother

HEIGHT, WIDTH = 540, 800
CLASSES = ("background", "head")
CALLS = 10


def work(name: str, axes: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """What to time for a head of these semi-axes in pixels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (WIDTH // 2, HEIGHT // 2), axes, 15, 0, 360, 1, -1)
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    head = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 5)
    confidence = np.stack((1 - head, head)).astype(np.float32)
    smoother = Smoother(0.5)
    text = "head 64.9 cm2, 285.6 mm around"
    return {
        f"measure in mm, {name} head": lambda: measure(mask, CLASSES, 0.1),
        f"measure in pixels, {name} head": lambda: measure(mask, CLASSES, None),
        f"contours, {name} head": lambda: contours(mask, CLASSES),
        f"smoothing, {name} head": lambda: smoother.update(confidence),
        f"draw, {name} head": lambda: draw(frame, mask, text=text),
        f"draw stale, {name} head": lambda: draw(frame, mask, text=text, stale="stale, 120 ms old"),
        f"draw_confidence, {name} head": lambda: draw_confidence(frame, head),
    }


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    jobs = work("usual", (150, 125)) | work("large", (320, 240))
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            job()
            start = perf_counter()
            for _ in range(CALLS):
                job()
            times[name].append((perf_counter() - start) * 1e3 / CALLS)
    for name, found in times.items():
        print(f"{name:32} median {statistics.median(found):.3f}  best {min(found):.3f} ms")


if __name__ == "__main__":
    main()
