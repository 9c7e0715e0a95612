"""CPU and memory limits of an emulated board: control groups, v1 or v2, whichever can be written here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BoardError

_ROOT = Path("/sys/fs/cgroup")
_PARENT = "edgeseg"
_PERIOD_US = 100_000
_EMPTY_WITHIN_S = 5.0
_V1 = ("cpu", "memory", "pids")
_PIDS = 1024


@dataclass(frozen=True, slots=True)
class Groups:
    """The control groups of one board.

    Attributes:
        kind: "cgroup v1", "cgroup v2", or "prlimit" where no control group can be written.
        folders: by controller; of v2 one folder for all.
    """

    kind: str
    folders: dict[str, Path]

    @property
    def entrances(self) -> tuple[Path, ...]:
        """The files to write a process id to."""
        return tuple(dict.fromkeys(folder / "cgroup.procs" for folder in self.folders.values()))

    def set_cpus(self, cpus: float | None) -> None:
        """Allow so many CPUs on average; None for all."""
        quota = None if cpus is None else max(1000, round(cpus * _PERIOD_US))
        if self.kind == "cgroup v2":
            self._write("cpu", "cpu.max", f"{'max' if quota is None else quota} {_PERIOD_US}")
        elif self.kind == "cgroup v1":
            self._write("cpu", "cpu.cfs_period_us", str(_PERIOD_US))
            self._write("cpu", "cpu.cfs_quota_us", str(-1 if quota is None else quota))

    def set_memory(self, count: int | None) -> None:
        """Allow so many bytes, none of them in swap; None for all."""
        if self.kind == "cgroup v2":
            self._write("memory", "memory.max", "max" if count is None else str(count))
            with contextlib.suppress(OSError):
                self._write("memory", "memory.swap.max", "0" if count else "max")
        elif self.kind == "cgroup v1":
            self._write("memory", "memory.limit_in_bytes", str(-1 if count is None else count))
            with contextlib.suppress(OSError):
                self._write("memory", "memory.swappiness", "0")

    def oom_kills(self) -> int | None:
        """Processes that the kernel killed for want of memory; None where that is not counted."""
        name = "memory.events" if self.kind == "cgroup v2" else "memory.oom_control"
        try:
            lines = (self.folders["memory"] / name).read_text(encoding="ascii").splitlines()
        except (OSError, KeyError):
            return None
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)

    def peak_memory(self) -> int | None:
        """The most bytes used so far, page cache included; None where that is not counted."""
        name = "memory.peak" if self.kind == "cgroup v2" else "memory.max_usage_in_bytes"
        try:
            return int((self.folders["memory"] / name).read_text(encoding="ascii"))
        except (OSError, KeyError, ValueError):
            return None

    def processes(self) -> list[int]:
        """Ids, on this machine, of all processes of the board."""
        found: set[int] = set()
        for entrance in self.entrances:
            with contextlib.suppress(OSError):
                found.update(map(int, entrance.read_text(encoding="ascii").split()))
        return sorted(found)

    def remove(self) -> None:
        """Remove the groups, which the last process has just left or is about to. Raises BoardError if it stays."""
        for folder in dict.fromkeys(self.folders.values()):
            for _ in _patience():
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    continue
                break
            else:
                raise BoardError(f"{folder} cannot be removed: processes of the board are still there")
            with contextlib.suppress(OSError):
                folder.parent.rmdir()  # the last board takes it along

    def _write(self, controller: str, name: str, value: str) -> None:
        (self.folders[controller] / name).write_text(value, encoding="ascii")


def groups(number: int) -> Groups:
    """Where the groups of a board are, or would be: by the number of its network, which no other board here has."""
    if (_ROOT / "cgroup.controllers").is_file():
        return Groups("cgroup v2", dict.fromkeys(_V1, _ROOT / _PARENT / str(number)))
    if all((_ROOT / controller).is_dir() for controller in _V1):
        return Groups("cgroup v1", {controller: _ROOT / controller / _PARENT / str(number) for controller in _V1})
    return Groups("prlimit", {})


def make_groups(number: int) -> Groups:
    """Make the groups of a board, without limits yet; those of kind "prlimit" where that is not permitted."""
    made = groups(number)
    try:
        if made.kind == "cgroup v2":
            for folder in (_ROOT, _ROOT / _PARENT):
                folder.mkdir(exist_ok=True)
                (folder / "cgroup.subtree_control").write_text("+cpu +memory +pids", encoding="ascii")
        for folder in made.folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        if made.folders:
            (made.folders["pids"] / "pids.max").write_text(str(_PIDS), encoding="ascii")
    except OSError:
        return Groups("prlimit", {})
    return made


def _patience() -> Iterator[None]:
    end_s = time.monotonic() + _EMPTY_WITHIN_S
    while time.monotonic() < end_s:
        yield
        time.sleep(0.02)
