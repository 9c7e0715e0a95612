"""What is wrong on this board, and how to fix it: all checks, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeseg.boards import checks_access, checks_engines, checks_system
from edgeseg.boards.findings import Finding, Machine, Severity

CHECKS: tuple[Callable[[Machine], Iterable[Finding]], ...] = (
    checks_engines.missing,
    checks_engines.broken,
    checks_engines.broken_devices,
    checks_engines.unverified,
    checks_engines.glibc,
    checks_engines.tflite_numpy,
    checks_access.device_nodes,
    checks_access.npu_driver,
    checks_access.sticks,
    checks_system.throttling,
    checks_system.governor,
    checks_system.power_mode,
    checks_system.realtime,
    checks_system.limits,
    checks_system.swap,
    checks_system.clock,
    checks_access.energy_counters,
    checks_system.profile,
)


def examine(machine: Machine) -> list[Finding]:
    """Everything that is wrong or could be better: errors, then warnings, then notes."""
    found = [finding for check in CHECKS for finding in check(machine)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))
