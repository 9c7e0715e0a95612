"""What reading a board's telemetry costs: on this machine, and on trees with as many sensors as boards have.

    python tools/telemetry_cost.py [--rate 10] [--seconds 3]

Prints, for each, the median time of one reading and the share of one core that a Sampler takes at the rate asked for.
Files of a temporary folder cost about as much as those of /sys whose driver has the value at hand; a driver that asks
a chip over i2c waits longer, which no core pays for.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from edgeseg.boards.detect import describe
from edgeseg.boards.sampler import Sampler
from edgeseg.boards.telemetry import Telemetry

_READINGS = 500


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10.0, help="Samples a second.")
    parser.add_argument("--seconds", type=float, default=3.0, help="How long the sampler runs.")
    options = parser.parse_args()
    print(describe())
    print(f"{'tree':<28}{'one reading':>14}{f'at {options.rate:g} Hz':>16}")
    with tempfile.TemporaryDirectory() as folder:
        jetson, pc = jetson_tree(Path(folder) / "jetson", 12), pc_tree(Path(folder) / "pc", 24)
        rows = {"this machine": Path("/"), "Jetson, 12 cores": jetson, "PC, 24 cores": pc}
        for name, root in rows.items():
            with Telemetry(root) as telemetry:
                one = reading_us(telemetry)
                with Sampler(telemetry, options.rate) as sampler:
                    time.sleep(options.seconds)
                print(f"{name:<28}{one:>11.0f} us{sampler.summary().cost:>11.3%} core")


def reading_us(telemetry: Telemetry) -> float:
    """Median microseconds of one reading."""
    spent = []
    for _ in range(_READINGS):
        began = time.perf_counter()
        telemetry.read()
        spent.append(time.perf_counter() - began)
    return median(spent) * 1e6


def jetson_tree(root: Path, cores: int) -> Path:
    """A folder with the sensors of a Jetson: two power monitors, ten zones, twelve cooling devices."""
    _common(root, cores)
    for monitor in range(2):
        _write(root / f"sys/class/hwmon/hwmon{monitor}/name", "ina3221")
        for channel in (1, 2, 3):
            folder = root / f"sys/class/hwmon/hwmon{monitor}"
            _write(folder / f"in{channel}_label", f"VDD_{monitor}{channel}")
            _write(folder / f"in{channel}_input", "4968")
            _write(folder / f"curr{channel}_input", "953")
            _write(folder / f"curr{channel}_crit_alarm", "0")
    for number in range(12):
        _write(root / f"sys/class/thermal/cooling_device{number}/type", f"cv{number}-throttle-alert")
        _write(root / f"sys/class/thermal/cooling_device{number}/cur_state", "0")
    _write(root / "sys/class/devfreq/17000000.gpu/device/load", "310")
    return root


def pc_tree(root: Path, cores: int) -> Path:
    """A folder with the sensors of a PC: energy counters, a throttle counter for every core."""
    _common(root, cores)
    for zone, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "uncore"), ("1", "psys")):
        folder = root / f"sys/class/powercap/intel-rapl:{zone}"
        _write(folder / "name", name)
        _write(folder / "energy_uj", "123456789")
        _write(folder / "max_energy_range_uj", "262143328850")
    for core in range(cores):
        for kind in ("core", "package"):
            _write(root / f"sys/devices/system/cpu/cpu{core}/thermal_throttle/{kind}_throttle_count", "3")
    return root


def _common(root: Path, cores: int) -> None:
    _write(root / "proc/meminfo", "MemTotal: 32000000 kB\nMemFree: 1 kB\nMemAvailable: 16000000 kB\n")
    _write(root / "proc/loadavg", "0.10 0.20 0.30 1/300 4000\n")
    for core in range(cores):
        folder = root / f"sys/devices/system/cpu/cpufreq/policy{core}"
        _write(folder / "scaling_cur_freq", "1510400")
        _write(folder / "scaling_governor", "schedutil")
        _write(folder / "affected_cpus", str(core))
    for zone in range(10):
        _write(root / f"sys/class/thermal/thermal_zone{zone}/type", f"zone{zone}-thermal")
        _write(root / f"sys/class/thermal/thermal_zone{zone}/temp", "48500")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


if __name__ == "__main__":
    main()
