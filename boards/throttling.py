"""What holds a board back: heat, too much current, too low a voltage. Each limiter has its own way to say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeseg.boards.sysfs import Source, numbered, readable, word

# Cooling devices that cost speed, unlike fans: of cpufreq and devfreq, of ACPI, and the alerts of Jetson boards.
_SLOWING = re.compile(r"cpufreq|devfreq|throttle-alert|hot-surface-alert|^Processor$")
_RASPBERRY = ("sys/devices/platform/soc/soc:firmware", "sys/devices/platform/soc@*/soc*:firmware")
_RASPBERRY_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


class Limiter(Protocol):
    """Something that may hold the board back."""

    def reasons(self) -> tuple[str, ...] | None:
        """Why it holds the board back now, empty where it does not; None where it cannot be read."""

    def sources(self) -> Iterable[Source]:
        """The files that it reads."""


@dataclass(slots=True)
class Count:
    """Counters that grow with every event: it held back if one grew since the last call."""

    reason: str
    counters: Sequence[Source]
    _last: list[int | None] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._last = [counter.number() for counter in self.counters]

    def reasons(self) -> tuple[str, ...] | None:
        """See Limiter."""
        before, self._last = self._last, [counter.number() for counter in self.counters]
        pairs = [(a, b) for a, b in zip(before, self._last, strict=True) if a is not None and b is not None]
        if not pairs:
            return None
        return (self.reason,) if any(b > a for a, b in pairs) else ()

    def sources(self) -> Iterable[Source]:
        """See Limiter."""
        return self.counters


@dataclass(slots=True)
class State:
    """A number that is above 0 as long as it holds back."""

    reason: str
    state: Source

    def reasons(self) -> tuple[str, ...] | None:
        """See Limiter."""
        value = self.state.number()
        return None if value is None else (self.reason,) if value > 0 else ()

    def sources(self) -> Iterable[Source]:
        """See Limiter."""
        return (self.state,)


@dataclass(slots=True)
class RaspberryPi:
    """The firmware's word: bits 0 to 3 for now; bits 16 to 19, what was since the start, are not read."""

    bits: Source

    def reasons(self) -> tuple[str, ...] | None:
        """See Limiter."""
        text = self.bits.text()
        try:
            bits = int(text or "", 16)
        except ValueError:
            return None
        return tuple(name for place, name in enumerate(_RASPBERRY_BITS) if bits >> place & 1)

    def sources(self) -> Iterable[Source]:
        """See Limiter."""
        return (self.bits,)


def find_limiters(root: Path) -> list[Limiter]:
    """Everything that tells whether this machine is held back."""
    return [*_intel(root), *_hwmon(root), *_cooling(root), *_raspberry(root)]


def _intel(root: Path) -> Iterable[Limiter]:
    cores = root / "sys/devices/system/cpu"
    for kind in ("core", "package"):
        files = [readable(path) for path in numbered(cores, f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count")]
        counters = [source for source in files if source is not None]
        if counters:
            yield Count(f"{kind} too hot", counters)


def _hwmon(root: Path) -> Iterable[Limiter]:
    for folder in numbered(root / "sys/class/hwmon", "hwmon*"):
        name = word(folder / "name")
        if name == "ina3221":
            for channel in (1, 2, 3):
                alarm = readable(folder / f"curr{channel}_crit_alarm")
                if alarm is not None and (label := word(folder / f"in{channel}_label")) not in ("", "NC"):
                    yield State(f"{label} over current", alarm)
        elif name == "soctherm_oc":
            events = [readable(path) for path in numbered(folder, "oc[0-9]_event_cnt")]
            if counters := [source for source in events if source is not None]:
                yield Count("over current or under-voltage", counters)
        elif name == "rpi_volt" and (alarm := readable(folder / "in0_lcrit_alarm")) is not None:
            yield State("under-voltage", alarm)


def _cooling(root: Path) -> Iterable[Limiter]:
    for folder in numbered(root / "sys/class/thermal", "cooling_device*"):
        kind = word(folder / "type")
        state = readable(folder / "cur_state") if _SLOWING.search(kind) else None
        if state is not None:
            yield State(f"{kind} cooling", state)


def _raspberry(root: Path) -> Iterable[Limiter]:
    for pattern in _RASPBERRY:
        for folder in root.glob(pattern):
            if (bits := readable(folder / "get_throttled")) is not None:
                yield RaspberryPi(bits)
