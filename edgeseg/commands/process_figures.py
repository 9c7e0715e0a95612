"""Memory and open files of this process and of those that it started, from /proc. What cannot be read is None."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(\w+):\s+(\d+) kB", re.MULTILINE)
_OWN = ("Pss_Anon", "Pss_Shmem", "SwapPss")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """What a process and its descendants hold.

    Attributes:
        own_mib: anonymous and shared memory, swapped out or not: what a leak is made of. It does not move when another
            process maps or leaves the same libraries, as the PSS does.
        pss_mib: proportional set size, in which a page that several processes share counts for each by its part.
        rss_mib: resident set size.
        descriptors: open file descriptors.
        processes: how many they are.
    """

    own_mib: float | None
    pss_mib: float | None
    rss_mib: float | None
    descriptors: int | None
    processes: int


def process_figures(without: Collection[int] = (), root: Path = _PROC) -> ProcessFigures:
    """Read the figures of this process and all its descendants, except those in `without`."""
    pids = [pid for pid in _family(root, os.getpid()) if pid not in without]
    rollups = [dict(_LINE.findall(_text(root / str(pid) / "smaps_rollup"))) for pid in pids]
    open_files = [_open_files(root / str(pid) / "fd") for pid in pids]
    return ProcessFigures(
        _total_mib(rollups, *_OWN),
        _total_mib(rollups, "Pss"),
        _total_mib(rollups, "Rss"),
        None if None in open_files else sum(count for count in open_files if count),
        len(pids),
    )


def _family(root: Path, pid: int) -> Iterator[int]:
    yield pid
    # Every thread has children of its own; a kernel may be built without this list.
    for listed in (root / str(pid) / "task").glob("*/children"):
        for child in _text(listed).split():
            yield from _family(root, int(child))


def _total_mib(rollups: list[dict[str, str]], *names: str) -> float | None:
    if not all(name in rollup for rollup in rollups for name in names):
        return None
    return sum(int(rollup[name]) for rollup in rollups for name in names) / 1024


def _open_files(folder: Path) -> int | None:
    try:
        return len(os.listdir(folder))  # noqa: PTH208 - of any length, without a Path for each
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
