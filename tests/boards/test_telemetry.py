from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from edgeseg.boards import power
from edgeseg.boards.telemetry import Reading, Telemetry

Plant = Callable[[Mapping[str, str]], Path]
STAT = "anon 1\ninactive_file 104857600"
RAPL = "sys/class/powercap/intel-rapl:0"


def rapl(energy: int, largest: int = 262_143_328_850, zone: str = "0", name: str = "package-0") -> dict[str, str]:
    folder = f"sys/class/powercap/intel-rapl:{zone}"
    files = {"name": name, "energy_uj": energy, "max_energy_range_uj": largest}
    return {f"{folder}/{key}": f"{value}\n" for key, value in files.items()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that energy is counted over; a test sets it."""
    now = [100.0]
    monkeypatch.setattr(power.time, "monotonic", lambda: now[0])
    return now


def test_nothing_readable_is_none_and_never_zero(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        reading = telemetry.read()
    assert {f.name: getattr(reading, f.name) for f in fields(Reading) if f.name != "at_s"} == dict.fromkeys(
        (f.name for f in fields(Reading) if f.name != "at_s"), None
    )


def test_this_machine_can_be_read() -> None:
    with Telemetry() as telemetry:
        first, second = telemetry.read(), telemetry.read()
    assert second.at_s > first.at_s
    assert second.memory_available_bytes
    assert second.load is not None


def test_a_jetson(unpack: Callable[[str], Path]) -> None:
    with Telemetry(unpack("jetson-orin-nano-devkit")) as telemetry:
        reading = telemetry.read()
    assert reading.rails_mw == pytest.approx(
        {"VDD_IN": 4.984 * 1856, "VDD_CPU_GPU_CV": 4.984 * 560, "VDD_SOC": 4.984 * 520}
    )
    assert reading.power_mw == pytest.approx(4.984 * 1856), "the other rails hang on VDD_IN"
    assert reading.zones_c == {"cpu-thermal": 48.687, "gpu-thermal": 47.5, "tj-thermal": 48.687}
    assert reading.temperature_c == 48.687
    assert reading.core_clocks_mhz == dict.fromkeys(range(6), 1728.0)
    assert (reading.clock_mhz, reading.governor) == (1728.0, "schedutil")
    assert (reading.gpu_load, reading.throttled, reading.throttled_by) == (0.31, False, ())


def test_a_jetson_of_the_older_driver_and_one_without_a_common_rail(unpack: Callable[[str], Path]) -> None:
    with Telemetry(unpack("jetson-nano")) as telemetry:
        reading = telemetry.read()
        assert (reading.power_mw, reading.rails_mw) == (
            2530,
            {"POM_5V_IN": 2530, "POM_5V_GPU": 40, "POM_5V_CPU": 530},
        )
        assert reading.temperature_c == 41.5, "the zone of the PMIC always says 100"
    with Telemetry(unpack("jetson-agx-orin-64gb")) as telemetry:
        reading = telemetry.read()
        assert reading.rails_mw is not None
        assert set(reading.rails_mw) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
        assert reading.power_mw == pytest.approx(sum(reading.rails_mw.values()))


def test_a_rail_that_fails_makes_the_sum_unknown(unpack: Callable[[str], Path]) -> None:
    root = unpack("jetson-agx-orin-64gb")
    with Telemetry(root) as telemetry:
        (root / "sys/class/hwmon/hwmon4/curr2_input").write_text("")
        reading = telemetry.read()
        assert reading.power_mw is None
        assert reading.rails_mw is not None
        assert "VDD_CPU_CV" not in reading.rails_mw


def test_energy_counters_give_the_mean_since_the_last_reading(plant: Plant, clock: list[float]) -> None:
    root = plant({**rapl(1_000_000), **rapl(500_000, zone="0:0", name="core")})
    with Telemetry(root) as telemetry:
        plant({**rapl(4_000_000), **rapl(1_500_000, zone="0:0", name="core")})
        clock[0] += 0.5
        reading = telemetry.read()
        assert reading.rails_mw == {"package-0": 6000.0, "core": 2000.0}
        assert reading.power_mw == 6000.0, "the cores are part of the package"
        clock[0] += 0.5
        assert telemetry.read().power_mw is None, "a counter that has not moved says nothing"
        plant(rapl(5_000_000))
        clock[0] += 0.5
        assert telemetry.read().power_mw == 1000.0, "over both intervals"


def test_two_sockets_have_a_core_each(plant: Plant, clock: list[float]) -> None:
    def sockets(first: int, second: int) -> dict[str, str]:
        files = {}
        for name, energy in (("0", first), ("1", second)):
            for zone, label in ((name, f"package-{name}"), (f"{name}:0", "core")):
                folder = f"sys/class/powercap/intel-rapl:{zone}"
                files |= {f"{folder}/name": label, f"{folder}/energy_uj": str(energy)}
                files |= {f"{folder}/max_energy_range_uj": "262143328850"}
        return files

    with Telemetry(plant(sockets(0, 0))) as telemetry:
        plant(sockets(2_000_000, 3_000_000))
        clock[0] += 1
        reading = telemetry.read()
    assert reading.rails_mw == {"package-0": 2000.0, "core": 2000.0, "package-1": 3000.0, "core#2": 3000.0}
    assert reading.power_mw == 5000.0


def test_an_energy_counter_wraps_around(plant: Plant, clock: list[float]) -> None:
    with Telemetry(plant(rapl(9_000_000, largest=10_000_000))) as telemetry:
        plant(rapl(1_000_000, largest=10_000_000))
        clock[0] += 1
        assert telemetry.read().power_mw == 2000.0


def test_a_counter_that_started_anew_is_no_power(plant: Plant, clock: list[float]) -> None:
    with Telemetry(plant(rapl(200_000_000_000))) as telemetry:
        plant(rapl(1_000))
        clock[0] += 1
        assert telemetry.read().power_mw is None, "62 kW are none"
        plant(rapl(5_001_000))
        clock[0] += 1
        assert telemetry.read().power_mw == 5000.0


def test_a_counter_that_cannot_be_read_is_not_measured(plant: Plant) -> None:
    root = plant(rapl(1_000_000))
    counter = root / RAPL / "energy_uj"
    counter.unlink()
    counter.symlink_to("nowhere")
    with Telemetry(root) as telemetry:
        assert telemetry.read().power_mw is None


def test_the_counter_of_another_interface_does_not_count_twice(plant: Plant, clock: list[float]) -> None:
    files = {**rapl(1_000_000), "sys/class/powercap/intel-rapl-mmio:0/name": "package-0\n"}
    files["sys/class/powercap/intel-rapl-mmio:0/energy_uj"] = "1000000\n"
    with Telemetry(plant(files)) as telemetry:
        plant(rapl(2_000_000))
        clock[0] += 1
        assert telemetry.read().power_mw == 1000.0


@pytest.mark.parametrize("kind", ["core", "package"])
def test_throttling_of_intel_is_what_came_since_the_last_reading(unpack: Callable[[str], Path], kind: str) -> None:
    root = unpack("intel-n100")
    counter = root / f"sys/devices/system/cpu/cpu2/thermal_throttle/{kind}_throttle_count"
    counter.write_text("7\n")  # since boot, long ago
    with Telemetry(root) as telemetry:
        assert telemetry.read().throttled is False
        counter.write_text("8\n")
        reading = telemetry.read()
        assert (reading.throttled, reading.throttled_by) == (True, (f"{kind} too hot",))
        assert telemetry.read().throttled is False


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("sys/class/hwmon/hwmon1/curr1_crit_alarm", "VDD_IN over current"),
        ("sys/class/thermal/cooling_device1/cur_state", "gpu-throttle-alert cooling"),
        ("sys/class/hwmon/hwmon3/oc2_event_cnt", "over current or under-voltage"),
    ],
)
def test_throttling_of_jetson(unpack: Callable[[str], Path], path: str, reason: str) -> None:
    root = unpack("jetson-orin-nano-devkit")
    with Telemetry(root) as telemetry:
        (root / path).write_text("1\n")
        assert telemetry.read().throttled_by == (reason,)


def test_a_fan_is_no_throttling(unpack: Callable[[str], Path]) -> None:
    root = unpack("jetson-orin-nano-devkit")
    assert (root / "sys/class/thermal/cooling_device2/type").read_text() == "pwm-fan\n"
    with Telemetry(root) as telemetry:
        assert telemetry.read().throttled is False


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ("0", ()),
        ("50000", ()),
        ("50005", ("under-voltage", "throttled")),
        ("8", ("soft temperature limit",)),
        ("0x2", ("clock capped",)),
    ],
)
def test_throttling_of_a_raspberry_pi(unpack: Callable[[str], Path], bits: str, reasons: tuple[str, ...]) -> None:
    root = unpack("raspberry-pi-5")
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text(bits + "\n")
    with Telemetry(root) as telemetry:
        reading = telemetry.read()
        assert (reading.throttled, reading.throttled_by) == (bool(reasons), reasons)


def test_cores_without_policies_and_mixed_governors(plant: Plant) -> None:
    files = {}
    for core, governor in enumerate(("performance", "powersave")):
        files[f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"] = f"{1000000 * (core + 1)}\n"
        files[f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"] = f"{governor}\n"
    with Telemetry(plant(files)) as telemetry:
        reading = telemetry.read()
    assert reading.core_clocks_mhz == {0: 1000.0, 1: 2000.0}
    assert (reading.clock_mhz, reading.governor) == (1500.0, "performance+powersave")


def test_a_core_that_comes_back_is_read_again(unpack: Callable[[str], Path]) -> None:
    root = unpack("rk3588-rock-5b")
    clock = root / "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq"
    with Telemetry(root) as telemetry:
        assert len(telemetry.read().core_clocks_mhz or ()) == 8
        clock.write_text("")  # offline: reads fail or give nothing
        assert sorted(telemetry.read().core_clocks_mhz or ()) == [0, 1, 2, 3, 6, 7]
        clock.write_text("600000\n")
        assert (telemetry.read().core_clocks_mhz or {})[4] == 600.0


def test_gpu_load_of_rockchip(unpack: Callable[[str], Path]) -> None:
    with Telemetry(unpack("rk3588s-orange-pi-5")) as telemetry:
        assert telemetry.read().gpu_load == 0.12


def test_zones_of_one_name_are_told_apart(plant: Plant) -> None:
    files = {}
    for number, heat in enumerate((30000, 40000)):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = "acpitz\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{heat}\n"
    files |= {"sys/class/hwmon/hwmon0/name": "k10temp\n", "sys/class/hwmon/hwmon0/temp1_input": "55000\n"}
    with Telemetry(plant(files)) as telemetry:
        assert telemetry.read().zones_c == {"acpitz": 30.0, "acpitz#2": 40.0, "k10temp": 55.0}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 4 << 30),
        ({"a/memory.max": 1 << 30, "a/memory.current": 600 << 20, "a/memory.stat": STAT}, 524 << 20),
        ({"a/memory.max": "max", "memory.max": 2 << 30, "memory.current": 1 << 30, "memory.stat": ""}, 1 << 30),
        ({"a/memory.max": 1 << 20, "a/memory.current": 2 << 20}, 0),
        ({"a/memory.max": 64 << 30, "a/memory.current": 1 << 30}, 4 << 30),
    ],
    ids=["no limit", "own", "above", "beyond it", "larger than the machine"],
)
def test_memory_is_what_the_control_groups_leave(plant: Plant, files: dict[str, object], left: int) -> None:
    tree = {f"sys/fs/cgroup/{name}": f"{value}\n" for name, value in files.items()}
    tree |= {"proc/self/cgroup": "0::/a\n", "proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:  {4 << 20} kB\n"}
    with Telemetry(plant(tree)) as telemetry:
        assert telemetry.read().memory_available_bytes == left


def test_memory_of_cgroup_v1(unpack: Callable[[str], Path]) -> None:
    with Telemetry(unpack("intel-n100-docker")) as telemetry:
        assert telemetry.read().memory_available_bytes == 536870912 - 104857600 + 4194304


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_opened_once_and_given_back(unpack: Callable[[str], Path]) -> None:
    root = unpack("jetson-orin-nano-devkit")
    before = open_files()
    telemetry = Telemetry(root)
    telemetry.read()
    during = open_files()
    for _ in range(20):
        telemetry.read()
    assert open_files() == during > before
    telemetry.close()
    telemetry.close()
    assert open_files() == before


def test_a_reading_is_cheap(unpack: Callable[[str], Path]) -> None:
    with Telemetry(unpack("jetson-agx-orin-64gb")) as telemetry:
        telemetry.read()
        spent = []
        for _ in range(50):
            began = time.thread_time()
            telemetry.read()
            spent.append(time.thread_time() - began)
    # 1 % of a core at 10 Hz is a millisecond.
    assert min(spent) < 1e-3


def test_garbage_is_none(plant: Plant) -> None:
    files = dict.fromkeys(
        (
            "proc/meminfo",
            "proc/loadavg",
            "sys/class/thermal/thermal_zone0/temp",
            "sys/class/devfreq/1.gpu/load",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
            f"{RAPL}/energy_uj",
        ),
        "\x01?\n",
    )
    root = plant({**files, f"{RAPL}/name": "package-0", "sys/class/thermal/thermal_zone0/type": "cpu"})
    with Telemetry(root) as telemetry:
        reading = telemetry.read()
    assert (reading.power_mw, reading.temperature_c, reading.gpu_load, reading.load) == (None, None, None, None)
    assert (reading.throttled, reading.clock_mhz, reading.memory_available_bytes) == (None, None, None)
