"""What a board does while it works: power, heat, clocks, throttling, load and memory, read from /proc and /sys."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeseg.boards.cgroup import memory_groups
from edgeseg.boards.power import find_rails, total
from edgeseg.boards.sysfs import Source, distinct, numbered, readable, word
from edgeseg.boards.throttling import find_limiters

_LIVE = Path("/")
_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
# Jetson's PMIC zone always says the same; k10temp is the only word of AMD processors on their heat.
_CONSTANT_ZONES = ("PMIC",)
_HWMON_ZONES = ("coretemp", "k10temp")
_COLDEST_C, _HOTTEST_C = -60.0, 150.0  # a zone that is switched off reports -256 or -274
_AVAILABLE = re.compile(r"^MemAvailable:\s*(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """A board at one moment. Every field is None where this machine does not tell, never 0.

    Attributes:
        at_s: `time.monotonic()`.
        power_mw: of the supply that all others hang on, or of all that are measured: the module's input on a Jetson,
            the processor packages on a PC (not the whole machine). Of counters, the mean since the last reading.
        rails_mw: by supply; one that could not be read this time is absent.
        temperature_c: of the hottest zone.
        zones_c: by zone; one that is switched off is absent.
        clock_mhz: mean over the cores.
        core_clocks_mhz: by core.
        governor: of cpufreq; several are joined by "+".
        throttled: held back now or since the last reading, by heat, current or voltage.
        throttled_by: the reasons, empty where it is not held back.
        gpu_load: 0..1.
        memory_available_bytes: within the machine and the control groups of this process.
        load: mean number of runnable threads over the last minute.
    """

    at_s: float
    power_mw: float | None = None
    rails_mw: Mapping[str, float] | None = None
    temperature_c: float | None = None
    zones_c: Mapping[str, float] | None = None
    clock_mhz: float | None = None
    core_clocks_mhz: Mapping[int, float] | None = None
    governor: str | None = None
    throttled: bool | None = None
    throttled_by: tuple[str, ...] | None = None
    gpu_load: float | None = None
    memory_available_bytes: int | None = None
    load: float | None = None


class Telemetry:
    """Finds once what can be read on a machine, and reads it as often as asked, by one thread at a time.

    A context manager; its files stay open until `close`.

    Args:
        root: where proc and sys lie; another folder than `/` is a recorded tree.
    """

    def __init__(self, root: Path = _LIVE) -> None:
        self._rails = find_rails(root)
        self._limiters = find_limiters(root)
        self._zones = _zones(root)
        self._clocks = _clocks(root)
        self._governors = [s for s in map(readable, _policies(root, "scaling_governor")) if s is not None]
        self._gpu = _gpu_load(root)
        self._meminfo = Source(root / "proc/meminfo")
        self._loadavg = Source(root / "proc/loadavg")
        self._groups = [(Source(g.limit), Source(g.usage), Source(g.stat), g.reclaimable) for g in memory_groups(root)]

    def read(self) -> Reading:
        """Read everything once; it takes well below a millisecond."""
        power = [(rail, rail.milliwatts()) for rail in self._rails]
        rails = {rail.name: value for rail, value in power if value is not None}
        zones = {name: value for name, source in self._zones if (value := _celsius(source)) is not None}
        clocks = {core: khz / 1000 for cores, source in self._clocks if (khz := source.number()) for core in cores}
        answers = [a for a in (limiter.reasons() for limiter in self._limiters) if a is not None]
        reasons = tuple(dict.fromkeys(reason for answer in answers for reason in answer)) if answers else None
        return Reading(
            at_s=time.monotonic(),
            power_mw=total(power),
            rails_mw=rails or None,
            temperature_c=max(zones.values(), default=None),
            zones_c=zones or None,
            clock_mhz=sum(clocks.values()) / len(clocks) if clocks else None,
            core_clocks_mhz=clocks or None,
            governor=self._governor(),
            throttled=None if reasons is None else bool(reasons),
            throttled_by=reasons,
            gpu_load=_load(self._gpu),
            memory_available_bytes=self._available(),
            load=_first_float(self._loadavg),
        )

    def close(self) -> None:
        """Give all files back; calling it twice is allowed."""
        for source in self._sources():
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _sources(self) -> Iterable[Source]:
        yield from (source for rail in self._rails for source in rail.sources())
        yield from (source for limiter in self._limiters for source in limiter.sources())
        yield from (source for _, source in self._zones)
        yield from (source for _, source in self._clocks)
        yield from self._governors
        yield from (source for source in (self._gpu, self._meminfo, self._loadavg) if source is not None)
        for limit, usage, stat, _ in self._groups:
            yield from (limit, usage, stat)

    def _governor(self) -> str | None:
        names = {name for source in self._governors if (name := source.text())}
        return "+".join(sorted(names)) or None

    def _available(self) -> int | None:
        found = _AVAILABLE.search(self._meminfo.text() or "")
        left = [int(found[1]) << 10] if found else []
        for limit, usage, stat, reclaimable in self._groups:
            most, used = limit.number(), usage.number()
            if most is not None and used is not None:
                left.append(max(0, most - used + _named(stat.text() or "", reclaimable)))
        return min(left, default=None)


def _policies(root: Path, name: str) -> list[Path]:
    """One file of each cpufreq policy; trees without policies have it below each core."""
    cores = root / "sys/devices/system/cpu"
    return numbered(cores, f"cpufreq/policy*/{name}") or numbered(cores, f"cpu[0-9]*/cpufreq/{name}")


def _clocks(root: Path) -> list[tuple[tuple[int, ...], Source]]:
    """The clock files, each with the cores that it is of."""
    found = []
    for path in _policies(root, "scaling_cur_freq"):
        source = readable(path)
        if source is not None:
            listed = word(path.parent / "affected_cpus").split() or re.findall(r"cpu(\d+)/", path.as_posix())
            found.append((tuple(int(core) for core in listed if core.isdecimal()), source))
    return found


def _zones(root: Path) -> list[tuple[str, Source]]:
    """Names and files of all that measures heat."""
    found: list[tuple[str, Source | None]] = []
    for folder in numbered(root / "sys/class/thermal", "thermal_zone*"):
        kind = word(folder / "type")
        if kind and not kind.startswith(_CONSTANT_ZONES):
            found.append((kind, readable(folder / "temp")))
    for folder in numbered(root / "sys/class/hwmon", "hwmon*"):
        if (name := word(folder / "name")) in _HWMON_ZONES:
            found += [(name, readable(path)) for path in numbered(folder, "temp*_input")]
    there = [(name, source) for name, source in found if source is not None]
    return list(zip(distinct(name for name, _ in there), (source for _, source in there), strict=True))


def _celsius(source: Source) -> float | None:
    value = source.number()
    return value / 1000 if value is not None and _COLDEST_C < value / 1000 < _HOTTEST_C else None


def _gpu_load(root: Path) -> Source | None:
    for folder in numbered(root / "sys/class/devfreq", "*"):
        if _GPU.search(folder.name):
            for name in ("device/load", "load"):
                if (source := readable(folder / name)) is not None:
                    return source
    return None


def _load(source: Source | None) -> float | None:
    """Jetson boards say 0 to 1000; Rockchip's say percent, an @ and the clock."""
    text = (source.text() or "") if source is not None else ""
    value, at, _ = text.partition("@")
    return int(value) / (100 if at else 1000) if value.isdecimal() else None


def _first_float(source: Source) -> float | None:
    try:
        return float((source.text() or "").split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None


def _named(text: str, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0
