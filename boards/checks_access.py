"""Checks of what this process may open: GPUs, NPUs, energy counters; and of devices that nothing drives."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from edgeseg.boards.findings import Finding, Machine, Severity
from edgeseg.boards.hardware import idle_npus
from edgeseg.boards.profile import profiles
from edgeseg.boards.sysfs import numbered, word

_READ, _READ_WRITE = 4, 6
_NPU_KERNEL = "6.6"  # of intel_vpu in a form that OpenVINO uses
_DRIVER = "Intel's driver from https://github.com/intel/linux-npu-driver/releases"
_STICK = "intel-ncs2"
_LIVE = Path("/")


def device_nodes(machine: Machine) -> Iterable[Finding]:
    """GPUs and NPUs that the kernel shows but this process may not open, or cannot see from its container."""
    for accelerator in machine.board.accelerators:
        node = _node(machine, accelerator.kind, accelerator.name)
        if node is None or _may(machine, node, _READ_WRITE):
            continue
        kind, shown = accelerator.kind, f"/{node.relative_to(machine.root)}"
        if not node.exists():
            if machine.board.container:
                yield Finding(
                    f"{kind}-not-in-container",
                    Severity.WARNING,
                    f"the machine has a {kind.upper()}, but {shown} is not in this container",
                    "engines inside find only the CPU",
                    "docker run --runtime nvidia"
                    if machine.board.l4t
                    else f"docker run --device /dev/{node.parent.name}",
                )
            continue
        group = _group(machine.root, node.stat().st_gid)
        yield Finding(
            f"{kind}-permission",
            Severity.WARNING,
            f"this user may not open {shown}",
            f"engines then find no {kind.upper()} and run on the CPU, without a word",
            f"sudo usermod -aG {group} {machine.process.user}, then log in again",
        )


def npu_driver(machine: Machine) -> Iterable[Finding]:
    """An Intel NPU without its driver."""
    for address in idle_npus(machine.root):
        kernel = machine.board.kernel
        old = _number(kernel) < _number(_NPU_KERNEL)
        yield Finding(
            "npu-driver",
            Severity.WARNING,
            f"the NPU at {address} has no driver"
            + (f", and kernel {kernel} is older than {_NPU_KERNEL}" if old else ""),
            "OpenVINO cannot use the NPU",
            f"{f'boot a kernel from {_NPU_KERNEL} on' if old else 'sudo modprobe intel_vpu'}, then install {_DRIVER}",
        )


def energy_counters(machine: Machine) -> Iterable[Finding]:
    """Counters that only root reads since 2020 (CVE-2020-8694): power is then not measured."""
    counters = numbered(machine.root / "sys/class/powercap", "intel-rapl:*/energy_uj")
    if not counters or any(_may(machine, counter, _READ) for counter in counters):
        return
    yield Finding(
        "rapl",
        Severity.NOTE,
        "the energy counters of the processor can only be read by root",
        "power is not measured: bench and soak leave it empty",
        "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj, until the next start; not on a machine with "
        "untrusted users (CVE-2020-8694)",
    )


def sticks(machine: Machine) -> Iterable[Finding]:
    """Sticks that no engine of today drives."""
    for accelerator in machine.board.accelerators:
        if accelerator.kind == "stick":
            yield Finding(
                "stick",
                Severity.WARNING,
                f"{accelerator.name} is plugged in, which edgeseg does not run on",
                profiles()[_STICK].refused,
                "edgeseg bench BUNDLE --runtime openvino shows what this machine's CPU does instead",
            )


def _may(machine: Machine, path: Path, bits: int) -> bool:
    """Here the kernel says it: it knows access lists, by which a desktop gives its user the GPU."""
    if machine.root == _LIVE:
        return os.access(path, bits, effective_ids=True)
    return machine.process.may(path, bits)


def _node(machine: Machine, kind: str, name: str) -> Path | None:
    """The device node that an engine opens; None where it is not known."""
    if name.startswith(("dri/", "accel/")):
        return machine.root / "dev" / name
    return machine.root / "dev/nvmap" if kind == "gpu" and machine.board.l4t else None


def _group(root: Path, gid: int) -> str:
    found = re.search(rf"^([^:\n]+):[^:\n]*:{gid}:", word(root / "etc/group"), re.MULTILINE)
    return found[1] if found and found[1] != "root" else "render"


def _number(release: str) -> tuple[int, ...]:
    """Major and minor of a kernel's release."""
    return tuple(int(part) for part in re.findall(r"\d+", release)[:2])
