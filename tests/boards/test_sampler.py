from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from edgeseg.boards.sampler import Sampler
from edgeseg.boards.telemetry import Telemetry


def wait_for(sampler: Sampler, samples: int) -> None:
    deadline = time.monotonic() + 20
    while sampler.summary().samples < samples:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_is_summed_up(unpack: Callable[[str], Path]) -> None:
    root = unpack("jetson-orin-nano-devkit")
    zone = root / "sys/class/thermal/thermal_zone3/temp"
    with Telemetry(root) as telemetry, Sampler(telemetry, 200) as sampler:
        wait_for(sampler, 3)
        (root / "sys/class/thermal/cooling_device0/cur_state").write_text("1\n")
        zone.write_text("90000\n")
        wait_for(sampler, sampler.summary().samples + 3)
    summary = sampler.summary()
    assert summary.samples == len(sampler.readings())
    heat = summary.spreads["temperature_c"]
    assert (heat.least, heat.most, heat.count) == (48.687, 90.0, summary.samples)
    assert heat.least < heat.mean < heat.most
    assert summary.throttled_share is not None
    assert 0 < summary.throttled_share < 1
    assert list(summary.throttled_by) == ["cpu-throttle-alert cooling"]
    assert summary.governors == ("schedutil",)
    assert summary.seconds > 0
    assert 0 < summary.cost < 1
    latest = sampler.latest()
    assert latest is not None
    assert latest.temperature_c == 90.0
    assert summary == sampler.summary(), "nothing changes after the end"


def test_what_is_not_readable_is_absent(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry, Sampler(telemetry, 500) as sampler:
        wait_for(sampler, 2)
    summary = sampler.summary()
    assert (summary.spreads, summary.throttled_share, summary.governors) == ({}, None, ())


def test_memory_is_bounded_and_the_whole_run_is_covered(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry, Sampler(telemetry, 2000, capacity=8) as sampler:
        wait_for(sampler, 100)
    readings = sampler.readings()
    assert len(readings) < 8
    span = readings[-1].at_s - readings[0].at_s
    gaps = [b.at_s - a.at_s for a, b in pairwise(readings)]
    assert max(gaps) < span, "both ends and something between them"
    assert span > 0.5 * sampler.summary().seconds


def test_the_thread_ends_with_the_block(tmp_path: Path) -> None:
    with Telemetry(tmp_path) as telemetry:
        with pytest.raises(KeyError), Sampler(telemetry, 1) as sampler:
            raise KeyError
        assert "edgeseg-telemetry" not in [thread.name for thread in threading.enumerate()]
        assert sampler.summary().seconds < 5, "it does not wait for the next sample"


@pytest.mark.parametrize(("rate", "capacity"), [(0, 10), (-1, 10), (10, 1)])
def test_nonsense_is_refused(tmp_path: Path, rate: float, capacity: int) -> None:
    with Telemetry(tmp_path) as telemetry, pytest.raises(ValueError, match="a rate above 0"):
        Sampler(telemetry, rate, capacity)
