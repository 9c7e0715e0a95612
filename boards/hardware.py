"""What is built into a machine beside its CPU: GPUs, NPUs, the vendor's software release, the power mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeseg.boards.sysfs import numbered, word

_INTEL = "0x8086"
_NPU_CLASS = "0x1200"  # PCI: processing accelerators
_NPU_PLATFORM_DRIVERS = ("RKNPU", "galcore", "ethosu", "neutron")
# USB: vendor and product of a Movidius stick before and after its firmware is loaded.
_MOVIDIUS = "03e7"
_STICKS: Mapping[str, str] = {
    "2150": "Myriad 2 (Neural Compute Stick)",
    "2485": "Myriad X (Neural Compute Stick 2)",
    "f63b": "Myriad X (Neural Compute Stick 2)",
}
_L4T = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")
# Jetson Linux to JetPack, for the releases that are in the field.
_JETPACK = {"32.7.6": "4.6.6", "36.5.0": "6.2.2", "38.4.0": "7.1", "39.2.0": "7.2", "35.6.0": "5.1.4", "36.4.3": "6.2"}
_GPU_PLATFORM = re.compile(r"\.(gpu|ga10b|gv11b|gp10b|gm20b)$|^gpu-gpc-0$")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device that may run networks faster than the CPU; whether an engine can use it is not said.

    Attributes:
        kind: "gpu", "npu" or "stick".
        name: of its device node, or what it is called.
        driver: of the kernel; empty where no driver holds it.
    """

    kind: str
    name: str
    driver: str = ""


def accelerators(root: Path) -> tuple[Accelerator, ...]:
    """What the kernel shows: render nodes, the GPUs of Jetson boards, accel nodes, vendors' NPUs, USB sticks."""
    found = [*_render_nodes(root), *_tegra_gpus(root), *_accel_nodes(root), *_other_npus(root), *_sticks(root)]
    return tuple(dict.fromkeys(found))


def l4t(root: Path) -> str:
    """The release of Jetson Linux, as in "36.4.3"; empty elsewhere."""
    found = _L4T.search(word(root / "etc/nv_tegra_release"))
    return f"{found[1]}.{found[2]}" if found else ""


def jetpack(release: str) -> str:
    """The JetPack of a release of Jetson Linux; empty where it is not known."""
    return _JETPACK.get(release if release.count(".") > 1 else f"{release}.0", "")


def power_modes(root: Path) -> dict[str, int]:
    """The power modes that a Jetson offers: name to the id that it has in this JetPack."""
    return {name: int(number) for number, name in _MODE.findall(word(root / "etc/nvpmodel.conf"))}


def power_mode(root: Path) -> str:
    """The power mode that is on, by its name: of nvpmodel, else of the firmware of a PC; empty where unknown."""
    found = re.search(r"pmode:(\d+)", word(root / "var/lib/nvpmodel/status"))
    if found:
        names = {number: name for name, number in power_modes(root).items()}
        return names.get(int(found[1]), f"mode {int(found[1])}")
    return word(root / "sys/firmware/acpi/platform_profile")


def container(root: Path) -> str:
    """What kind of container this is; empty where it shows no sign of being one."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    return word(root / "run/systemd/container")


def idle_npus(root: Path) -> list[str]:
    """PCI addresses of Intel NPUs that no driver holds."""
    return [
        folder.name
        for folder in numbered(root / "sys/bus/pci/devices", "*")
        if word(folder / "vendor") == _INTEL
        and word(folder / "class").startswith(_NPU_CLASS)
        and not driver(folder / "driver")
    ]


def driver(link: Path) -> str:
    """The name that a `driver` link leads to; empty where there is none."""
    try:
        return link.readlink().name
    except OSError:
        return ""


def _render_nodes(root: Path) -> Iterable[Accelerator]:
    for folder in numbered(root / "sys/class/drm", "renderD*"):
        yield Accelerator("gpu", f"dri/{folder.name}", driver(folder / "device/driver"))


def _tegra_gpus(root: Path) -> Iterable[Accelerator]:
    for folder in numbered(root / "sys/class/devfreq", "*"):
        if _GPU_PLATFORM.search(folder.name) and (root / "etc/nv_tegra_release").exists():
            yield Accelerator("gpu", folder.name, driver(folder / "device/driver") or "nvgpu")


def _accel_nodes(root: Path) -> Iterable[Accelerator]:
    for folder in numbered(root / "sys/class/accel", "accel*"):
        yield Accelerator("npu", f"accel/{folder.name}", driver(folder / "device/driver"))


def _other_npus(root: Path) -> Iterable[Accelerator]:
    """Drivers of vendors that do not use the accel class are known by their names."""
    for name in _NPU_PLATFORM_DRIVERS:
        if (root / "sys/bus/platform/drivers" / name).is_dir():
            yield Accelerator("npu", name, name)


def _sticks(root: Path) -> Iterable[Accelerator]:
    for folder in numbered(root / "sys/bus/usb/devices", "*"):
        if word(folder / "idVendor") == _MOVIDIUS:
            yield Accelerator("stick", _STICKS.get(word(folder / "idProduct"), "Movidius"))
