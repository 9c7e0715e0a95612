"""What embedding edgeseg costs a program: import, first result, memory, reloads. Asked and measured, as a table.

    python tools/embedding_cost.py head.edgeseg
    python tools/embedding_cost.py head.edgeseg --only import --only first --json embedding.json

Everything is measured in fresh processes, one at a time, those of different kinds in turns; printed are medians.
Files are in the page cache, and the byte code of everything is compiled, into a folder of this run: a first start after
a reboot pays the disk besides, and an installation without byte code takes twice as long to import.
Leaks are judged by the memory that only the process itself has (`Anonymous` of /proc/self/smaps_rollup): its resident
and proportional sets also move when another process loads or frees the same library.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from edgeseg import open_bundle
from edgeseg.boards.detect import describe
from edgeseg.plugins import ENGINE_OF, ENGINES

CHILD = Path(__file__).with_name("embedding_child.py")
IMPORTS = ("edgeseg", "edgeseg:open_bundle", "edgeseg:load", "edgeseg.cli")
PARTS = ("import", "first", "memory", "reload")
IMPORT_MS, FIRST_MS, DRIFT_KB, RELOAD_KB = 150.0, 1000.0, 1024.0, 10.0
TIMEOUT_S = 3600

Figures = dict[str, Any]
Pairing = tuple[str, str]  # a runtime and a precision


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the verdict. `asked` is a limit that `measured` must not exceed, None where nothing is asked."""

    what: str
    unit: str
    measured: float
    asked: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is within its limit."""
        return self.asked is None or self.measured <= self.asked


def child(*arguments: object) -> Figures:
    """What a fresh process reports."""
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip()[-400:]}")
    found: Figures = json.loads(done.stdout)
    return found


def wall_ms(*command: str) -> float:
    """How long a command takes, from its start to its end."""
    start = perf_counter()
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
    return (perf_counter() - start) * 1e3


def import_lines(processes: int) -> tuple[list[Line], Figures]:
    """Imports, and a command line that does nothing, beside a Python that does nothing."""
    times: dict[str, list[float]] = {target: [] for target in (*IMPORTS, "python", "help")}
    modules: dict[str, int] = {}
    for _ in range(processes + 1):
        for target in IMPORTS:
            found = child("import", target)
            times[target].append(found["ms"])
            modules[target] = found["modules"]
        times["python"].append(wall_ms("-c", "pass"))
        times["help"].append(wall_ms("-m", "edgeseg.cli", "--help"))
    middle = {target: median(taken[1:]) for target, taken in times.items()}
    asked = {"edgeseg": IMPORT_MS, "edgeseg:load": IMPORT_MS}
    lines = [
        Line(
            named(target),
            "ms",
            middle[target],
            asked.get(target),
            f"best {min(times[target]):.0f}, {modules[target]} modules",
        )
        for target in IMPORTS
    ]
    lines.append(Line("`edgeseg --help`, whole process", "ms", middle["help"], None, f"python {middle['python']:.0f}"))
    return lines, {"ms": times}


def named(target: str) -> str:
    """`module:name` as Python says it."""
    module, _, name = target.partition(":")
    return f"`import {module}; {module}.{name}`" if name else f"`import {module}`"


def first_lines(bundle: Path, pairings: Sequence[Pairing], processes: int) -> tuple[list[Line], Figures]:
    """From load, and from the start of a program, to the first mask."""
    runs: dict[Pairing, list[Figures]] = {pairing: [] for pairing in pairings}
    for _ in range(processes + 1):
        for pairing in pairings:
            runs[pairing].append(child("frames", bundle, *pairing, 0)["marks"])
    lines = []
    for pairing, found in runs.items():
        name, spent = " ".join(pairing), [spans(marks) for marks in found[1:]]
        middle = {part: median(span[part] for span in spent) for part in spent[0]}
        parts = "import {import:.0f}, bundle {open:.0f}, engine {engine:.0f}, load {load:.0f}, frame {first:.1f}"
        lines += [
            Line(f"{name}: load() returned to first mask", "ms", middle["first"], FIRST_MS),
            Line(f"{name}: load() called to first mask, engine's import included", "ms", middle["called"], FIRST_MS),
            Line(f"{name}: program start to first mask", "ms", middle["all"], FIRST_MS, parts.format(**middle)),
        ]
    return lines, {"marks_ms": {" ".join(pairing): found for pairing, found in runs.items()}}


def spans(marks: Mapping[str, float]) -> dict[str, float]:
    """How long each step took, from when each was done; `called`: from the call of load to the first mask."""
    steps = ["import", "open", "engine", "picture", "load", "first"]
    before = dict(zip(steps, [0.0, *(marks[step] for step in steps)], strict=False))
    span = {step: marks[step] - before[step] for step in steps}
    span["all"] = marks["first"] - span["picture"]
    span["called"] = span["engine"] + span["load"] + span["first"]
    return span


def memory_lines(bundle: Path, pairings: Sequence[Pairing], frames: int) -> tuple[list[Line], Figures]:
    """Memory of a process with one segmenter, and whether frames leave something behind."""
    found = {pairing: child("frames", bundle, *pairing, frames) for pairing in pairings}
    lines: list[Line] = []
    for pairing, figures in found.items():
        name, memory = " ".join(pairing), figures["memory"]
        steps = ("start", "import", "engine", "load", "first", "frames")
        parts = ", ".join(f"{step} {memory[step]['rss_kb'] / 1e3:.0f}" for step in steps)
        drift = memory["frames"]["own_kb"] - memory["warm"]["own_kb"]
        lines += [
            Line(f"{name}: resident after {frames} frames", "MB", memory["frames"]["rss_kb"] / 1e3, None, parts),
            Line(f"{name}: the process's own of it", "MB", memory["frames"]["own_kb"] / 1e3),
            Line(f"{name}: growth over {frames} frames", "kB", drift, DRIFT_KB),
        ]
    return lines, {" ".join(pairing): figures for pairing, figures in found.items()}


def reload_lines(bundle: Path, pairings: Sequence[Pairing], reloads: int) -> tuple[list[Line], Figures]:
    """Growth for each reload, as it is and after the C library gave back what it kept; the bare engine's beside it."""
    kinds = ("reloads", "bare")
    found = {pairing: {kind: child(kind, bundle, *pairing, reloads) for kind in kinds} for pairing in pairings}
    lines: list[Line] = []
    for pairing, figures in found.items():
        name = f"{' '.join(pairing)}: {reloads} reloads"
        ours, bare = (growth(figures[kind], reloads) for kind in kinds)
        said = f"slope {ours['slope']:.2f}; bare engine {bare['raw']:.2f}, slope {bare['slope']:.2f}"
        lines += [
            Line(f"{name}, memory", "kB each", ours["raw"], RELOAD_KB, said),
            Line(f"{name}, after malloc_trim", "kB each", ours["kept"], RELOAD_KB, f"bare engine {bare['kept']:.2f}"),
            Line(f"{name}, open files and threads", "more", ours["open"], 0.0, f"{ours['ms']:.1f} ms a reload"),
        ]
    return lines, {" ".join(pairing): figures for pairing, figures in found.items()}


def growth(figures: Figures, reloads: int) -> dict[str, float]:
    """In kB a reload: last against first, by the slope, and of what is left after malloc_trim; files and threads."""
    readings, (before, after) = figures["readings"], figures["trimmed"]
    own = [(reading["reloads"], reading["own_kb"]) for reading in readings]
    return {
        "raw": (own[-1][1] - own[0][1]) / reloads,
        "slope": slope(own),
        "kept": (after["own_kb"] - before["own_kb"]) / reloads,
        "open": sum(readings[-1][what] - readings[0][what] for what in ("files", "threads")),
        "ms": figures["reload_ms"],
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes from each point to the next: a step up, which the whole shows, is not one."""
    return median((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(points))


def table(lines: Iterable[Line]) -> str:
    """Markdown."""
    rows = ["| what | asked | measured | | note |", "|---|---:|---:|---|---|"]
    for line in lines:
        asked = "" if line.asked is None else f"<= {line.asked:g} {line.unit}"
        verdict = "" if line.asked is None else ("ok" if line.passed else "**missed**")
        digits = 2 if abs(line.measured) < 10 else 0
        rows.append(f"| {line.what} | {asked} | {line.measured:.{digits}f} {line.unit} | {verdict} | {line.note} |")
    return "\n".join(rows)


def measure(options: argparse.Namespace) -> tuple[list[Line], Figures]:
    """All parts that are wanted."""
    bundle, parts = options.bundle.resolve(), options.only or PARTS
    artifacts = open_bundle(bundle).artifacts
    found = {(ENGINE_OF[artifact.format], str(artifact.precision)) for artifact in artifacts}
    wanted = options.runtime or ENGINES
    pairings = sorted(pairing for pairing in found if pairing[0] in wanted)
    lines: list[Line] = []
    figures: Figures = {}
    for part in parts:
        if part == "import":
            new, figures[part] = import_lines(options.processes)
        elif part == "first":
            new, figures[part] = first_lines(bundle, pairings, options.processes)
        elif part == "memory":
            new, figures[part] = memory_lines(bundle, pairings, options.frames)
        else:
            new, figures[part] = reload_lines(bundle, pairings, options.reloads)
        print(f"{part}: done", file=sys.stderr, flush=True)
        lines += new
    return lines, figures


def main() -> int:
    """Measure, print, and exit 1 where something is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be given again")
    parser.add_argument("--runtime", action="append", choices=ENGINES, help="one engine; may be given again")
    parser.add_argument("--processes", type=int, default=11, help="fresh processes a figure, one more is not counted")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as compiled:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = compiled
        lines, figures = measure(options)
    print(f"{describe()}\n{options.bundle.name}\n\n{table(lines)}")
    if options.json:
        rows = [{**asdict(line), "passed": line.passed} for line in lines]
        options.json.write_text(json.dumps({"schema": 1, "rows": rows, "figures": figures}, indent=1) + "\n")
    return 0 if all(line.passed for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
