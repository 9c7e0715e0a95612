"""The hostile corpus, case by case: each in a fresh folder and a fresh process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from edgeseg.fuzz.corpus import LONG_SECRET, Case, Scene
from edgeseg.fuzz.outcomes import Outcomes
from edgeseg.fuzz.watch import watch
from edgeseg.fuzz.workbench import Workbench
from edgeseg.golden import read_frame

_FRAMES = 4


def try_corpus(bench: Workbench, cases: Sequence[Case], advance: Callable[[], None]) -> list[Outcomes]:
    """Feed every case to edgeseg; one row a group of cases, with the peak of memory in its notes."""
    rows: dict[str, Outcomes] = {}
    frames = _frames(bench)
    secret = bench.root / "secret.txt"
    secret.write_text(LONG_SECRET)
    for index, case in enumerate(cases):
        place = bench.root / "corpus"
        folder = place / f"{index:03d}"
        folder.mkdir(parents=True)
        scene = Scene(
            folder, bench.bundle, frames / "images" / "000.png", frames, secret, place / "canary", place / "out"
        )
        seen = watch(case, scene)
        row = rows.setdefault(case.group, Outcomes("corpus", case.group, notes={"peak MB": 0, "cases": []}))
        miss = f"{case.name}: {', '.join(seen.faults)} ({seen.said})" if seen.faults else None
        row.add("refused" if seen.code else "unharmed", seen.seconds, miss)
        row.notes["peak MB"] = max(row.notes["peak MB"], round(seen.memory_mb))
        row.notes["cases"].append(
            {
                "name": case.name,
                "attacks": case.attacks,
                "code": seen.code,
                "seconds": round(seen.seconds, 2),
                "memory_mb": round(seen.memory_mb),
                "said": seen.said,
                "faults": list(seen.faults),
            }
        )
        shutil.rmtree(place)
        advance()
    return list(rows.values())


def _frames(bench: Workbench) -> Path:
    """A folder of sound frames, made of the golden ones."""
    folder = bench.root / "frames"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index, golden in enumerate(bench.bundle.manifest.golden[:_FRAMES]):
        cv2.imwrite(str(folder / "images" / f"{index:03d}.png"), read_frame(golden))
    return folder
