"""Limits of the control groups (v1 and v2) that a process is in. /proc/meminfo and the core count do not show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeseg.boards.sysfs import word

_UNLIMITED_V1 = 1 << 60  # v1 writes the largest page-aligned number instead of "max"


def cpu_limit(root: Path) -> float | None:
    """CPUs that the process may use on average, the least over its group and all above it; None without a limit."""
    limits = [_quota(*_words(folder / "cpu.max")) for folder in _unified(root)]
    for folder in _controller(root, "cpu"):
        quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        limits.append(_quota(*quota, *period))
    return min((limit for limit in limits if limit is not None), default=None)


def memory_limit(root: Path) -> int | None:
    """Bytes that the process may use, the least over its group and all above it; None without a limit."""
    found = [_words(folder / "memory.max") for folder in _unified(root)]
    found += [_words(folder / "memory.limit_in_bytes") for folder in _controller(root, "memory")]
    return min((int(words[0]) for words in found if _limited(words)), default=None)


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """Where a control group says how much memory it may use, uses, and could give back.

    Attributes:
        limit, usage: files of one number; the limit may be "max".
        stat: a file of names and numbers.
        reclaimable: the name in it of the page cache that goes first.
    """

    limit: Path
    usage: Path
    stat: Path
    reclaimable: str


def memory_groups(root: Path) -> list[MemoryGroup]:
    """The process's group and all above it that have a limit now."""
    found = [
        MemoryGroup(folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file")
        for folder in _unified(root)
    ]
    found += [
        MemoryGroup(
            folder / "memory.limit_in_bytes",
            folder / "memory.usage_in_bytes",
            folder / "memory.stat",
            "total_inactive_file",
        )
        for folder in _controller(root, "memory")
    ]
    return [group for group in found if _limited(_words(group.limit))]


def _limited(words: list[str]) -> bool:
    return bool(words) and words[0].isdecimal() and int(words[0]) < _UNLIMITED_V1


def _quota(quota: str = "max", period: str = "100000", *_: str) -> float | None:
    # "max" in v2 and -1 in v1 are no limit.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _words(path: Path) -> list[str]:
    return word(path).split()


def _memberships(root: Path) -> Iterator[tuple[str, list[str], PurePosixPath]]:
    """Hierarchy id, controllers and path of every group in proc/self/cgroup."""
    for line in word(root / "proc/self/cgroup").splitlines():
        identifier, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield identifier, controllers.split(","), PurePosixPath(path or "/")


def _unified(root: Path) -> Iterator[Path]:
    base = root / "sys/fs/cgroup"
    for identifier, _, path in _memberships(root):
        if identifier == "0":
            for mount in (base, base / "unified"):
                yield from _upwards(mount, path)


def _controller(root: Path, name: str) -> Iterator[Path]:
    base = root / "sys/fs/cgroup"
    for _, controllers, path in _memberships(root):
        if name in controllers:
            for mount in dict.fromkeys((base / name, base / ",".join(controllers))):
                yield from _upwards(mount, path)


def _upwards(mount: Path, path: PurePosixPath) -> Iterator[Path]:
    """The group's folder and all above it. In a container the path may be one of the host: the mount itself remains."""
    parts = [p for p in path.parts if p not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])
