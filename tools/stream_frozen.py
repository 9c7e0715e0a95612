"""How much the picture changes from frame to frame: what `edgeseg.runtimes.frozen` goes by.

    python tools/stream_frozen.py CLIP_OR_FOLDER...

For each: the number of steps, the least and the median number of 64 blocks that change in one, the longest standstill
that the detector finds, in steps, and how many steps are bit-identical.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import numpy as np

from edgeseg.frames import open_frames
from edgeseg.runtimes.frozen import FreezeDetector, changed_blocks, sample


def main() -> None:
    """Print a line for each sequence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", nargs="+", type=Path, metavar="CLIP_OR_FOLDER")
    for path in parser.parse_args().sequences:
        print(f"{path.name}: {describe(path)}", flush=True)


def describe(path: Path) -> str:
    """The figures of one sequence."""
    detector = FreezeDetector(0.5)
    changes: list[int] = []
    longest = identical = 0
    before = None
    for index, item in enumerate(open_frames(path)):
        longest = max(longest, int(detector.update(item.frame, float(index))))
        if before is not None and before.shape == item.frame.shape:
            changes.append(changed_blocks(sample(before), sample(item.frame)))
            identical += np.array_equal(before, item.frame)
        before = item.frame
    blocks = f"least {min(changes)}, median {median(changes):g} blocks"
    return f"{len(changes)} steps, {blocks}, longest standstill {longest} steps, {identical} bit-identical"


if __name__ == "__main__":
    main()
