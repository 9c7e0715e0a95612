"""`edgeseg soak`: what it computes, and what a shell sees of it with a real engine."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from edgeseg.boards.telemetry import Reading
from edgeseg.commands.cpu_hogs import CpuHogs
from edgeseg.commands.latency_histogram import LatencyHistogram
from edgeseg.commands.process_figures import ProcessFigures, process_figures
from edgeseg.commands.soak_run import plan
from edgeseg.commands.soak_verdict import SoakLimits, drift, judge, passed
from edgeseg.commands.soak_windows import Window, WindowRecorder, Windows
from edgeseg.runtimes.stream_result import Freshness, StreamResult, StreamStats, Switch

Invoke = Callable[..., Result]

FRAME = np.zeros((4, 4), np.uint8)
WINDOW = Window(1, 60.0, 0, 1800, 0, 0, 0, 0, 0, 0, 0, 0, p50_ms=2.0, p99_ms=5.0, own_mib=100.0, descriptors=12)
# What a busy machine does to a short soak is no reason to fail a test; what is measured has to be there all the same.
LENIENT = ("--deadline", 2000, "--max-dropped", 10_000, "--max-missed", 10_000, "--max-drift", 100)
SHORT = ("--minutes", 0.05, "--fps", 30, "--link", "onnxruntime:int8", *LENIENT)


def result(latency_ms: float = 2.0, freshness: Freshness = Freshness.FRESH, late: bool = False) -> StreamResult:
    return StreamResult(0, "f", FRAME, FRAME, freshness, latency_ms, latency_ms, late, "link", 0)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeseg.cli", "soak", *map(str, arguments)]


def soak(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=120)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell started us with &
        **options,
    )  # fmt: skip


def children(pid: int) -> set[int]:
    listed = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return {int(child) for found in listed for child in found}


def is_running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def wait_for(condition: Any, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_are_within_half_a_percent(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(1, 1.5, 20_000)
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    assert histogram.count == len(values)
    assert histogram.mean_ms == pytest.approx(values.mean())
    for thousandths in (10, 500, 900, 990, 999):
        exact = np.sort(values)[len(values) * thousandths // 1000 - 1]
        assert histogram.percentile(thousandths / 10) == pytest.approx(exact, rel=0.0051), thousandths
    assert histogram.percentile(100) == histogram.max_ms == values.max()


def test_a_histogram_of_odd_values() -> None:
    histogram = LatencyHistogram()
    assert histogram.percentile(50) is None
    assert histogram.mean_ms is None
    for value in (0.0, -1.0, 1e-9, 1e12, math.nan):
        histogram.record(value)
    assert histogram.count == 4
    assert (histogram.min_ms, histogram.max_ms) == (-1.0, 1e12)
    assert histogram.percentile(100) == 1e12
    one = LatencyHistogram()
    one.record(7.25)
    assert one.percentile(50) == one.percentile(99.9) == 7.25


def test_measuring_for_hours_takes_no_more_memory() -> None:
    windows, recorder, total = Windows(500), WindowRecorder(1.0), LatencyHistogram()

    def minutes(count: int) -> None:
        for _ in range(count):
            for index in range(100):
                recorder.record(result(index), index)
                total.record(index)
            recorder.sample(ProcessFigures(1.0, 1.0, 1.0, 3, 1), Reading(0.0))
            windows.append(recorder.close(StreamStats(), 0.0))

    tracemalloc.start()
    minutes(10)
    before = tracemalloc.get_traced_memory()[0]
    minutes(200)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(windows) == 210
    assert grown < 5_000


def test_a_window_comes_back_as_it_was() -> None:
    windows = Windows(2)
    first = replace(WINDOW, temperature_c=None, throttled=0, clock_mhz=1800.5, max_ms=math.pi)
    windows.append(first)
    windows.append(WINDOW)
    windows.append(replace(WINDOW, index=9))
    assert windows[0] == first
    assert type(windows[0].stale) is int
    assert [w.index for w in windows] == [1, 9]  # never more than there is room for


def test_a_window_has_its_own_counts_only() -> None:
    recorder = WindowRecorder(period_ms=40.0)
    recorder.begin(10.0)
    for index in range(11):
        recorder.record(result(3.0 if index < 10 else 9.0), 10.0 + index * 0.04)
    recorder.record(result(50.0, late=True), 10.5)
    recorder.record(result(20.0, Freshness.STALE), 10.54)
    recorder.sample(ProcessFigures(100.0, 110.0, 120.0, 12, 1), Reading(0.0, temperature_c=50.0, throttled=False))
    recorder.sample(ProcessFigures(102.0, 110.0, 120.0, 14, 1), Reading(1.0, temperature_c=61.0, throttled=True))
    switch = Switch(3, "a", "b", "hung")
    first = recorder.close(StreamStats(fresh=12, stale=1, late=1, dropped=4, skipped=2, switches=(switch,)), 11.0)
    assert (first.index, first.seconds, first.name) == (0, 1.0, "warm-up")
    assert (first.fresh, first.stale, first.late, first.missed, first.dropped, first.skipped) == (12, 1, 1, 2, 4, 2)
    assert first.switches == 1
    assert first.p50_ms == pytest.approx(3.0, rel=0.005)
    assert first.max_ms == 50.0
    assert first.jitter_ms == pytest.approx(60.0, rel=0.01)  # 100 ms between two results instead of 40
    assert (first.own_mib, first.descriptors, first.temperature_c, first.throttled) == (101.0, 14, 61.0, 1)
    assert first.clock_mhz is None
    second = recorder.close(StreamStats(fresh=20, stale=1, late=1, dropped=5, skipped=2, switches=(switch,)), 12.0)
    assert (second.index, second.fresh, second.stale, second.missed, second.dropped) == (1, 8, 0, 0, 1)
    assert (second.skipped, second.switches, second.p50_ms, second.throttled) == (0, 0, None, None)


def grown(*own_mib: float) -> list[Window]:
    return [replace(WINDOW, index=i + 1, own_mib=mib) for i, mib in enumerate(own_mib)]


def test_drift_is_the_last_minute_minus_the_first() -> None:
    moved = drift([*grown(100.0, 100.5), replace(WINDOW, own_mib=101.0, p50_ms=2.5, descriptors=11)])
    assert moved.memory_mib == 1.0
    assert moved.memory_kib_per_minute == pytest.approx(512)
    assert moved.p50_ms == 0.5
    assert moved.descriptors == -1
    assert moved.temperature_c is None
    assert drift(grown(100.0)).memory_mib is None
    assert drift([]).p50_ms is None


def test_resident_memory_stands_in_where_the_kernel_tells_no_better() -> None:
    windows = [replace(WINDOW, own_mib=None, rss_mib=mib) for mib in (200.0, 202.0)]
    assert drift(windows).memory_mib == 2.0


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, None),
        ({"missed": 1}, "missed deadlines"),
        ({"dropped": 1}, "dropped frames"),
        ({"skipped": 1}, "dropped frames"),
        ({"own_mib": 101.1}, "memory drift"),
        ({"own_mib": 101.0}, None),
        ({"own_mib": 60.0}, None),
        ({"descriptors": 13}, "open files drift"),
        ({"throttled": 1}, "throttled"),
        ({"switches": 1}, "engine switches"),
    ],
)
def test_each_limit_fails_by_itself(change: dict[str, Any], failed: str | None) -> None:
    windows = [WINDOW, WINDOW, replace(WINDOW, **change)]
    judgements = judge(windows, 20.0, None, SoakLimits(33.3))
    assert [j.name for j in judgements if j.passed is False] == ([failed] if failed else [])
    assert passed(judgements) is (failed is None)


def test_latency_and_hogs_have_limits_too() -> None:
    late = judge([WINDOW, WINDOW], 33.4, None, SoakLimits(33.3))
    assert [j.name for j in late if j.passed is False] == ["p99.9 latency"]
    lost = judge([WINDOW, WINDOW], 20.0, 1, SoakLimits(33.3))
    assert [j.name for j in lost if j.passed is False] == ["CPU hogs lost"]


def test_what_was_not_measured_neither_fails_nor_passes() -> None:
    found = {j.name: j.passed for j in judge([WINDOW], None, None, SoakLimits(33.3))}
    assert found["throttled"] is None
    assert found["memory drift"] is None
    assert found["p99.9 latency"] is None
    assert found["missed deadlines"] is True


def test_minutes_are_windows_and_short_soaks_have_five() -> None:
    assert asdict(plan(30, None)) == {"window_s": 60.0, "windows": 30, "warm_up_s": 60.0}
    assert asdict(plan(1, 3.0)) == {"window_s": 12.0, "windows": 5, "warm_up_s": 3.0}
    assert plan(7.5, None).windows * plan(7.5, None).window_s == 450


@pytest.mark.parametrize("option", ["--minutes", "--warm-up", "--max-p999", "--max-drift", "--deadline", "--fps"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_limits_that_are_no_finite_numbers_are_bad_usage(invoke: Invoke, option: str, value: str) -> None:
    done = invoke("soak", "bundle", "source", option, value)
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.stderr


def test_the_figures_of_a_process_are_its_own() -> None:
    code = "import sys; block = bytearray(64 << 20); print(1, flush=True); sys.stdin.read()"
    before = process_figures()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    both, alone = process_figures(), process_figures(without=(child.pid,))
    child.communicate()
    child.stdout.close()
    assert both.processes == alone.processes + 1
    for name in ("own_mib", "pss_mib", "rss_mib"):
        assert getattr(both, name) - getattr(alone, name) > 64
        assert abs(getattr(alone, name) - getattr(before, name)) < 16
    with Path(os.devnull).open(), Path(os.devnull).open():
        more = process_figures()
    assert more.descriptors == process_figures().descriptors + 2


def test_figures_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    assert process_figures(root=tmp_path) == ProcessFigures(None, None, None, None, 1)


def test_hogs_burn_and_are_gone() -> None:
    with CpuHogs(2) as hogs:
        assert hogs.lost == 0
        pids = hogs.pids
        wait_for(lambda: all(_ticks(pid) > 5 for pid in pids))
        os.kill(pids[0], signal.SIGKILL)
        wait_for(lambda: hogs.lost == 1)
    assert not any(map(is_running, pids))


def _ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def test_hogs_end_with_a_parent_that_is_killed(bundle: Path, frames: Path) -> None:
    child = start(bundle, frames, *SHORT, "--minutes", 5, "--hogs", 2)
    hogs = wait_for(lambda: len(found := children(child.pid)) == 2 and found)
    assert child.stdout is not None
    child.kill()
    child.communicate()
    wait_for(lambda: not any(map(is_running, hogs)))


def test_figures_that_could_not_be_written_are_told_of_at_once(bundle: Path, frames: Path, tmp_path: Path) -> None:
    done = soak(bundle, frames, "--json", tmp_path / "none" / "soak.json")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*none/soak\.json cannot be written.*\n", done.stderr)


def test_a_soak_that_passes(bundle: Path, frames: Path, tmp_path: Path) -> None:
    done = soak(bundle, frames, *SHORT, "--hogs", 1, "--json", tmp_path / "soak.json")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:6]] == ["warm-up", *(f"window {i}" for i in range(1, 6))]
    assert "last window minus first after the warm-up: p50" in done.stdout
    assert re.search(r"missed deadlines +10000 .* passed", done.stdout)
    assert lines[-1] == "passed"
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["schema"] == 1
    assert found["passed"] is True
    assert found["reason"] is None
    assert (found["rate_hz"], found["deadline_ms"], found["hogs"]) == (30, 2000, 1)
    assert (found["warm_up_s"], found["window_s"]) == (pytest.approx(0.6), pytest.approx(0.6))
    assert [w["index"] for w in found["windows"]] == list(range(6))
    assert found["total"]["results"] == sum(w["fresh"] + w["stale"] for w in found["windows"][1:])
    assert found["total"]["results"] > 30
    assert 0 < found["total"]["p50_ms"] <= found["total"]["p999_ms"] <= found["total"]["max_ms"]
    for window in found["windows"]:
        assert 10 < window["own_mib"] < window["pss_mib"] + 1 <= window["rss_mib"] + 1
        assert window["descriptors"] > 3
    assert {limit["name"] for limit in found["limits"]} >= {"missed deadlines", "memory drift", "CPU hogs lost"}


def test_a_soak_that_misses_its_deadline_fails(bundle: Path, frames: Path, tmp_path: Path) -> None:
    options = (*SHORT, "--deadline", 0.05, "--max-missed", 0, "--json", tmp_path / "soak.json")
    done = soak(bundle, frames, *options)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "FAILED"
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["passed"] is False
    failed = {limit["name"]: limit for limit in found["limits"] if limit["passed"] is False}
    assert failed["missed deadlines"]["measured"] > failed["missed deadlines"]["asked"] == 0
    assert failed["p99.9 latency"]["measured"] > failed["p99.9 latency"]["asked"] == 0.05


def test_an_interrupted_soak_has_no_verdict(bundle: Path, frames: Path, tmp_path: Path) -> None:
    child = start(bundle, frames, *SHORT, "--minutes", 0.5, "--hogs", 1, "--json", tmp_path / "soak.json")
    assert child.stdout is not None
    line = ""
    while not line.startswith("window 1"):
        line = child.stdout.readline()
    (hog,) = children(child.pid)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=30)
    assert (child.returncode, errors.strip()) == (130, "error: interrupted")
    assert "passed" not in output
    assert "window 1" in output
    found = json.loads((tmp_path / "soak.json").read_text())
    assert (found["passed"], found["reason"], found["limits"]) == (False, "interrupted", [])
    assert not is_running(hog)


def test_an_engine_that_dies_for_good_ends_the_soak(bundle: Path, frames: Path, tmp_path: Path) -> None:
    child = start(bundle, frames, *SHORT, "--minutes", 0.5, "--isolate", "--json", tmp_path / "soak.json")
    assert child.stdout is not None
    child.stdout.readline()
    for pid in children(child.pid):
        os.kill(pid, signal.SIGKILL)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert re.fullmatch(r"error: .*frame \d+.*\n", errors)
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["passed"] is False
    assert found["reason"] in errors


def test_a_live_source_that_ends_too_early(bundle: Path) -> None:
    with subprocess.Popen(
        command(bundle, "pipe:-?width=32&height=24", *LENIENT), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        _, errors = child.communicate("\0" * 32 * 24 * 3)
    assert child.returncode == 1
    assert re.fullmatch(r"error: the source ended before .*\n", errors)
