"""Real-time scheduling where it is permitted, and what is said where it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeseg.errors import BadInput
from edgeseg.runtimes import realtime


def may_schedule() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


permitted = pytest.mark.skipif(not may_schedule(), reason="no CAP_SYS_NICE here")


@pytest.fixture
def worker():
    """A thread that was there before."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    yield thread
    end.set()
    thread.join()


def memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def policy_of_new_thread() -> tuple[int, int]:
    found = []
    thread = threading.Thread(
        target=lambda: found.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))
    )
    thread.start()
    thread.join()
    return found[0]


@permitted
def test_every_thread_gets_it_and_it_can_be_taken_back(worker: threading.Thread) -> None:
    cpus, interval = os.sched_getaffinity(0), sys.getswitchinterval()
    one = {min(cpus)}
    with realtime.apply(30, one) as applied:
        assert (applied.scheduler, applied.priority, applied.memory_locked) == ("SCHED_FIFO", 30, True)
        assert (applied.cpus, applied.refused) == (tuple(one), ())
        assert os.sched_getscheduler(worker.native_id) == os.SCHED_FIFO
        assert os.sched_getaffinity(worker.native_id) == one
        assert policy_of_new_thread() == (os.SCHED_FIFO, 30)
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        assert memory_kb("VmLck") > 0
    assert os.sched_getscheduler(0) == os.sched_getscheduler(worker.native_id) == os.SCHED_OTHER
    assert os.sched_getaffinity(0) == os.sched_getaffinity(worker.native_id) == cpus
    assert memory_kb("VmLck") == 0
    assert sys.getswitchinterval() == interval


@permitted
def test_locking_memory_does_not_make_the_process_grow() -> None:
    before = memory_kb("VmRSS")
    with realtime.apply():
        threads = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        grown = memory_kb("VmRSS") - before
        for thread in threads:
            thread.join()
    # Ten stacks of 8 MB each are not read in.
    assert grown < 20_000


@permitted
def test_urgent_threads_are_above_and_a_thread_that_hangs_below(worker: threading.Thread) -> None:
    with realtime.apply(30, lock_memory=False):
        found = []

        def urgent() -> None:
            realtime.raise_priority()
            found.append(os.sched_getparam(0).sched_priority)

        thread = threading.Thread(target=urgent)
        thread.start()
        thread.join()
        assert found == [31]
        realtime.demote(worker.native_id)
        assert os.sched_getscheduler(worker.native_id) == os.SCHED_OTHER
        assert os.sched_getscheduler(0) == os.SCHED_FIFO


def test_nothing_is_raised_without_a_real_time_scheduler(worker: threading.Thread) -> None:
    realtime.raise_priority()
    realtime.demote(worker.native_id)
    assert os.sched_getscheduler(0) == os.sched_getscheduler(worker.native_id) == os.SCHED_OTHER


UNPRIVILEGED = """
import json, os, resource, sys
from edgeseg.runtimes import realtime
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
applied = realtime.apply(40)
again = bytearray(64 << 20)  # more than the limit: nothing is locked
json.dump([applied.scheduler, applied.priority, applied.memory_locked, applied.refused], sys.stdout)
"""


def test_what_is_not_permitted_is_said_with_the_reason_and_the_remedy() -> None:
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, check=True, timeout=60)
    scheduler, priority, locked, refused = json.loads(done.stdout)
    assert (scheduler, priority, locked) == ("SCHED_OTHER", 0, False)
    assert len(refused) == 2
    assert "SCHED_FIFO is not permitted" in refused[0]
    assert "ulimit -r 41" in refused[0]
    assert "CAP_SYS_NICE" in refused[0]
    assert "limited to 8 MB" in refused[1]
    assert "ulimit -l" in refused[1]


def test_a_processor_that_is_not_there() -> None:
    before = os.sched_getaffinity(0)
    with realtime.apply(cpus={4095}, lock_memory=False) as applied:
        assert any("4095" in reason and "cpuset" in reason for reason in applied.refused)
        assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("priority", "cpus"), [(0, None), (99, None), (10, ())])
def test_bad_requests_change_nothing(priority: int, cpus: tuple[int, ...] | None) -> None:
    with pytest.raises(BadInput, match="expected"):
        realtime.apply(priority, cpus)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_starvation_is_told_by_the_kernel(worker: threading.Thread) -> None:
    before = realtime.starved_s(worker.native_id)
    assert 0 <= before < 10
    assert realtime.starved_s(0x7FFFFFF) == 0.0
