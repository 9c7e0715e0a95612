"""Checks of the machine itself: clocks, power, heat, memory, time, and what the scheduler lets us do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from edgeseg.boards.findings import CAP_IPC_LOCK, CAP_SYS_NICE, UNLIMITED, Finding, Machine, Severity
from edgeseg.boards.hardware import power_modes
from edgeseg.boards.profile import GENERIC
from edgeseg.boards.sysfs import numbered, word

_TIGHT_BYTES = 512 << 20
_LOCKABLE_BYTES = 256 << 20  # an engine with a model, and Python
_BORN = datetime(2025, 1, 1, tzinfo=UTC).timestamp()


def governor(machine: Machine) -> Iterable[Finding]:
    """Clocks that follow the load are low when a frame comes."""
    found = machine.reading.governor
    policies = machine.root / "sys/devices/system/cpu/cpufreq"
    preferences = {word(path) for path in numbered(policies, "policy*/energy_performance_preference")}
    if found in (None, "performance") or (found == "powersave" and preferences == {"performance"}):
        return
    tegra = bool(machine.board.l4t)
    yield Finding(
        "governor",
        Severity.WARNING,
        f"the CPU governor is {found}",
        "clocks follow the load: they are low when a frame comes, so single frames are slower than the bench says",
        "sudo jetson_clocks"
        if tegra
        else "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def power_mode(machine: Machine) -> Iterable[Finding]:
    """A Jetson that is kept slower than it could be. Ids differ between releases: modes are told by their names."""
    offered = power_modes(machine.root)
    best = next((mode.name for mode in machine.profile.power_modes if mode.name in offered), None)
    now = machine.board.power_mode
    if best is None or not now or now == best:
        return
    yield Finding(
        "power-mode",
        Severity.WARNING,
        f"the power mode is {now}, the fastest here is {best}",
        "a lower mode caps clocks and may switch cores off",
        f"sudo nvpmodel -m {offered[best]}",
    )


def throttling(machine: Machine) -> Iterable[Finding]:
    """Held back at this moment."""
    if not machine.reading.throttled:
        return
    heat = machine.reading.temperature_c
    reasons = ", ".join(machine.reading.throttled_by or ())
    yield Finding(
        "throttling",
        Severity.WARNING,
        f"the board is held back now: {reasons}" + (f" (hottest zone {heat:.0f} °C)" if heat is not None else ""),
        "whatever is measured now is slower than this board can be, and will be so in the field under the same load",
        "cool it (fan, heat sink, air), use a power supply that is strong enough, then run edgeseg doctor again",
    )


def swap(machine: Machine) -> Iterable[Finding]:
    """Pages that were swapped out come back in the middle of a frame."""
    rows = [line.split() for line in word(machine.root / "proc/swaps").splitlines()[1:]]
    rows = [row for row in rows if len(row) >= 4 and row[3].isdecimal()]
    if not rows:
        return
    used = sum(int(row[3]) for row in rows) >> 10
    names = ", ".join(row[0] for row in rows)
    zram = all("zram" in row[0] for row in rows)
    yield Finding(
        "swap",
        Severity.WARNING if used else Severity.NOTE,
        f"{used} MB are swapped out to {names}" if used else f"swap is on ({names}), not used now",
        "memory that was swapped out comes back in the middle of a frame: tens of milliseconds"
        + (", and zram takes a core to compress" if zram else ""),
        "sudo systemctl disable --now nvzramconfig && sudo swapoff -a"
        if zram and machine.board.l4t
        else "sudo swapoff -a",
    )


def limits(machine: Machine) -> Iterable[Finding]:
    """Control groups that give less than the machine has."""
    quota, memory = machine.board.cpu_quota, machine.board.memory_limit_bytes
    if quota is not None:
        yield Finding(
            "cpu-quota",
            Severity.WARNING,
            f"control groups allow {quota:g} CPUs by a quota",
            "once it is used up all threads stop for the rest of its period, mostly 100 ms: in the middle of a frame",
            "give whole cores: docker run --cpuset-cpus=0-1 (not --cpus), in a unit AllowedCPUs= (not CPUQuota=)",
        )
    if memory is not None:
        tight = memory < _TIGHT_BYTES
        yield Finding(
            "memory-limit",
            Severity.WARNING if tight else Severity.NOTE,
            f"control groups allow {memory >> 20} MB of memory",
            "Python with an engine and a small model takes 150 to 300 MB; beyond the limit the kernel kills it",
            "docker run --memory=1g, or MemoryMax=1G in a unit; edgeseg bench prints each artifact's peak memory",
        )


def clock(machine: Machine) -> Iterable[Finding]:
    """A board without a battery starts in 1970."""
    if machine.process.now >= _BORN:
        return
    yield Finding(
        "clock",
        Severity.ERROR,
        f"the clock says {datetime.fromtimestamp(machine.process.now, UTC):%Y-%m-%d %H:%M}: it was never set",
        "records and signatures made now carry a wrong time, and TLS refuses every certificate, so pip cannot install",
        "sudo timedatectl set-ntp true; without a network: sudo date -s '2026-01-31 12:00'",
    )


def realtime(machine: Machine) -> Iterable[Finding]:
    """The scheduling class and the locked memory that keep deadlines while the machine is busy."""
    process = machine.process
    scheduling = process.rtprio > 0 or process.can(CAP_SYS_NICE)
    locking = process.memlock_bytes == UNLIMITED or process.memlock_bytes >= _LOCKABLE_BYTES
    locking = locking or process.can(CAP_IPC_LOCK)
    if scheduling and locking:
        return
    lacks = [] if scheduling else ["SCHED_FIFO (RLIMIT_RTPRIO is 0)"]
    lacks += [] if locking else [f"locked memory beyond {process.memlock_bytes >> 10} kB (RLIMIT_MEMLOCK)"]
    line = f"printf '{process.user} - rtprio 80\\n{process.user} - memlock unlimited\\n'"
    yield Finding(
        "realtime",
        Severity.WARNING,
        f"this user may not have {' and '.join(lacks)}",
        "the default scheduler misses deadlines: 37 of 450 frames at 30 Hz beside three CPU hogs, none with SCHED_FIFO"
        " and locked memory",
        "docker run --cap-add=SYS_NICE --ulimit rtprio=80 --ulimit memlock=-1"
        if machine.board.container
        else f"{line} | sudo tee /etc/security/limits.d/edgeseg.conf, then log in again",
    )


def profile(machine: Machine) -> Iterable[Finding]:
    """No profile, or one that cannot be read."""
    if machine.profile_error:
        yield Finding(
            "profile",
            Severity.ERROR,
            machine.profile_error,
            "the profiles of your folders are left out, so this board may be taken for another",
            "correct the file; docs/boards.md lists what a profile may say",
        )
    if machine.board.profile == GENERIC:
        note = next((note for note in machine.board.notes if "stands in" in note), "no profile is for this machine")
        named = re.sub(r"\W+", "-", machine.board.model or "my-board").strip("-").lower()
        yield Finding(
            "unknown-board",
            Severity.NOTE,
            note,
            "engines are tried in a general order, and nothing is known of power modes, clocks and limits",
            f"write ~/.config/edgeseg/boards/{named}.toml; edgeseg boards show raspberry-pi-5 shows what one says",
        )
