"""What a board draws: the power monitors of Jetson boards, the energy counters of Intel and AMD processors."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeseg.boards.sysfs import Source, distinct, numbered, readable, word

# Rails that all others hang on; where none is there, the sum is what the monitors see.
_WHOLE = ("VDD_IN", "POM_5V_IN", "5V_IN", "VIN")
_UNUSED = "NC"
_MOST_MILLIWATTS = 2e6  # beyond it a counter has started anew, as after a suspend


class Rail(Protocol):
    """One supply. `whole` says that the others are part of it."""

    name: str
    whole: bool

    def milliwatts(self) -> float | None:
        """Now, or the mean since the last call; None where it cannot be read."""

    def sources(self) -> Iterable[Source]:
        """The files that it reads."""


@dataclass(slots=True)
class MonitorRail:
    """A channel of an INA3221: volts times amperes, or the product where the driver gives it."""

    name: str
    factors: Sequence[Source]
    whole: bool = False

    def milliwatts(self) -> float | None:
        """Now; None where the channel is off."""
        product = 1.0
        for source in self.factors:
            value = source.number()
            if value is None:
                return None
            product *= value
        # Millivolts and milliamperes make microwatts.
        return product / 1000 if len(self.factors) == 2 else product

    def sources(self) -> Iterable[Source]:
        """The files that it reads."""
        return self.factors


@dataclass(slots=True)
class EnergyRail:
    """A zone of intel-rapl: a counter of microjoules that wraps around at its range."""

    name: str
    counter: Source
    range_uj: int
    whole: bool = False
    _last: tuple[int, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.milliwatts()

    def milliwatts(self) -> float | None:
        """The mean since the last call, or since the rail was found; None where the counter does not tell."""
        energy, now, before = self.counter.number(), time.monotonic(), self._last
        if before is not None and energy == before[0]:
            return None  # not counted on since, which says nothing about the power
        self._last = None if energy is None else (energy, now)
        if energy is None or before is None:
            return None
        spent = energy - before[0]
        if spent < 0:
            spent += self.range_uj
        power = spent / (now - before[1]) / 1000
        return power if 0 <= power < _MOST_MILLIWATTS else None

    def sources(self) -> Iterable[Source]:
        """The files that it reads."""
        return (self.counter,)


def find_rails(root: Path) -> list[Rail]:
    """All supplies of a machine that can be read; those of the power monitors where it has any."""
    rails: list[Rail] = [*_hwmon_rails(root), *_iio_rails(root)] or [*_energy_rails(root)]
    for rail, name in zip(rails, distinct([rail.name for rail in rails]), strict=True):
        rail.name = name  # two sockets have a "core" each
    return rails


def total(readings: Sequence[tuple[Rail, float | None]]) -> float | None:
    """Milliwatts of the rail that all others hang on, else of all; None where one of these cannot be read."""
    counted = [power for rail, power in readings if rail.whole] or [power for _, power in readings]
    known = [power for power in counted if power is not None]
    return sum(known) if known and len(known) == len(counted) else None


def _hwmon_rails(root: Path) -> Iterable[MonitorRail]:
    for folder in numbered(root / "sys/class/hwmon", "hwmon*"):
        if word(folder / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            name = word(folder / f"in{channel}_label")
            factors = [readable(folder / f"{quantity}{channel}_input") for quantity in ("in", "curr")]
            yield from _monitor_rail(name, factors)


def _iio_rails(root: Path) -> Iterable[MonitorRail]:
    """JetPack 4 has a driver of its own."""
    for folder in numbered(root / "sys/bus/i2c/drivers/ina3221x", "*/iio:device*"):
        for channel in (0, 1, 2):
            name = word(folder / f"rail_name_{channel}")
            yield from _monitor_rail(name, [readable(folder / f"in_power{channel}_input")])


def _monitor_rail(name: str, factors: Sequence[Source | None]) -> Iterable[MonitorRail]:
    found = [source for source in factors if source is not None]
    if name and name != _UNUSED and len(found) == len(factors):
        yield MonitorRail(name, found, whole=name in _WHOLE)


def _energy_rails(root: Path) -> Iterable[EnergyRail]:
    # intel-rapl-mmio counts the same packages once more.
    for folder in numbered(root / "sys/class/powercap", "intel-rapl:*"):
        counter, name = readable(folder / "energy_uj"), word(folder / "name")
        largest = Source(folder / "max_energy_range_uj")
        if counter is not None and name:
            yield EnergyRail(name, counter, largest.number() or 0, whole=name.startswith("package"))
        largest.close()
