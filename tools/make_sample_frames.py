"""Choose the frames that ship inside edgeseg: `python tools/make_sample_frames.py PATH_OF_HC18_SUBSET`.

Six of the train split for calibration and twelve of the test split for evaluation. A split is cut into as many equal
runs of exams and each gives the frame with the smallest file, because the package has 10 MB for its samples.
"""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path

import cv2

from edgeseg.dataset import Sample, read_folder

OUT = Path(__file__).parents[1] / "edgeseg" / "samples" / "frames"
COUNTS = {"train": 6, "test": 12}
COLUMNS = ("file", "split", "exam_id", "pixel_size_mm", "hc_mm_reference")


def choose(samples: tuple[Sample, ...], count: int) -> list[Sample]:
    """The smallest file of each of `count` parts."""
    bounds = [len(samples) * i // count for i in range(count + 1)]
    return [
        min(samples[low:high], key=lambda s: s.image.stat().st_size)
        for low, high in pairwise(bounds)
    ]


def main(root: Path) -> None:
    """Write images (recompressed without loss), masks and index.csv."""
    folder = read_folder(root, need_masks=True)
    chosen = [s for split, count in COUNTS.items() for s in choose(folder.select(split).samples, count)]
    for name in ("images", "masks"):
        (OUT / name).mkdir(parents=True, exist_ok=True)
    with (OUT / "index.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for sample in chosen:
            assert sample.mask
            _, data = cv2.imencode(".png", sample.read_frame(), [cv2.IMWRITE_PNG_COMPRESSION, 9])
            (OUT / "images" / sample.name).write_bytes(data.tobytes())
            (OUT / "masks" / sample.name).write_bytes(sample.mask.read_bytes())
            writer.writerow((sample.name, sample.split, sample.exam, sample.pixel_size_mm, sample.hc_mm_reference))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
