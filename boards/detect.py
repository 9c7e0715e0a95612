"""What machine is this? Read from /proc, /sys and /etc below a root folder, so that recorded trees can stand in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeseg.boards.cgroup import cpu_limit, memory_limit
from edgeseg.boards.hardware import Accelerator, accelerators, container, jetpack, l4t, power_mode
from edgeseg.boards.profile import GENERIC, Profile, match_profile, profile, profile_folders, profiles
from edgeseg.boards.sysfs import word
from edgeseg.errors import BoardError

FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
# ARM gives numbers instead of names: (implementer, part) of the cores that boards in this field have.
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x4E, 0x004): "Carmel",
}
_STICKS = "intel-ncs2"
_LIVE = Path("/")


@dataclass(frozen=True, slots=True)
class Board:
    """A machine as it was found. What could not be read is None or empty, never a guess.

    Attributes:
        architecture: as `uname -m` gives it.
        cpu_model: the CPU's name.
        flags: those of FLAGS that every core has.
        cores: what this process may use: its affinity, cut down to the CPU quota of its control groups; at least 1.
        memory_bytes: physical memory, or the limit of the control groups where that is lower.
        os: name and version of the distribution.
        kernel: release of the kernel.
        model: the device tree's model, what the SoC driver or the CPU's list says where that is out of reach, or vendor
            and product of a PC.
        compatible: the device tree's `compatible`.
        profile: name of the profile that fits.
        notes: what a reader should know about these figures.
        accelerators: GPUs, NPUs and sticks that the kernel shows.
        l4t: release of Jetson Linux; `jetpack` is what NVIDIA calls it, where that is known.
        power_mode: the one that is on, by its name.
        container: as in "docker".
        cpu_quota: CPUs that the control groups allow, where that is less than the cores.
        memory_limit_bytes: what the control groups allow, where that is less than the memory.
    """

    architecture: str
    cpu_model: str
    flags: tuple[str, ...]
    cores: int | None
    memory_bytes: int | None
    os: str
    kernel: str
    model: str
    compatible: tuple[str, ...]
    profile: str
    notes: tuple[str, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    l4t: str = ""
    jetpack: str = ""
    power_mode: str = ""
    container: str = ""
    cpu_quota: float | None = None
    memory_limit_bytes: int | None = None


def detect(root: Path = _LIVE, known: Mapping[str, Profile] | None = None) -> Board:
    """Find out what machine this is.

    It is recognised by the device tree, else by the name that another place gives it, else by its CPU's name.

    Args:
        root: where proc, sys and etc lie; another folder than `/` is a recorded tree, in which proc/self is that of
            the process that recorded it.
        known: the profiles to choose from; by default those of edgeseg and of the user's folders, where one that is
            malformed is said in a note.
    """
    blocks = _cpuinfo(root)
    compatible = tuple(p for p in _device_tree(root, "compatible").split("\0") if p)
    cpu_model, model = _cpu_model(blocks), _model(root, blocks)
    allowed, quota = _allowed_cores(root, blocks), cpu_limit(root)
    total, limit = _total_memory(root), memory_limit(root)
    known, notes = _profiles(known)
    found = match_profile(compatible, cpu_model, model=model, memory_bytes=total, known=known)
    built_in, release = accelerators(root), l4t(root)
    quota = quota if quota is not None and (allowed is None or quota < allowed) else None
    limit = limit if limit is not None and (total is None or limit < total) else None
    if quota is not None and allowed is not None:
        notes.append(f"control groups allow {quota:g} of {allowed} cores")
    if limit is not None and total is not None:
        notes.append(f"control groups allow {_gib(limit)} of {_gib(total)}")
    if found.name == GENERIC:
        notes.append(_unknown(release, container(root)))
    notes += [
        f"{a.name}: {profile(_STICKS, known).refused}" for a in built_in if a.kind == "stick" and _STICKS in known
    ]
    return Board(
        architecture=_architecture(root, blocks),
        cpu_model=cpu_model,
        flags=_flags(blocks),
        cores=_usable(allowed, quota),
        memory_bytes=min((m for m in (total, limit) if m is not None), default=None),
        os=_os_name(root),
        kernel=word(root / "proc/sys/kernel/osrelease"),
        model=model,
        compatible=compatible,
        profile=found.name,
        notes=tuple(notes),
        accelerators=built_in,
        l4t=release,
        jetpack=jetpack(release),
        power_mode=power_mode(root),
        container=container(root),
        cpu_quota=quota,
        memory_limit_bytes=limit,
    )


def describe(board: Board | None = None) -> str:
    """A machine in one line, this one by default: `x86_64, AMD EPYC, 2 cores, 23.5 GiB, avx512_vnni`."""
    board = board or detect()
    # avx2 says something only where none of the int8 instructions is there.
    flags = [f for f in board.flags if f != "avx2"] or list(board.flags)
    parts = [
        board.architecture,
        board.cpu_model or board.model,
        "" if board.cores is None else f"{board.cores} core{'s' if board.cores > 1 else ''}",
        "" if board.memory_bytes is None else _gib(board.memory_bytes),
        " ".join(flags),
    ]
    return ", ".join(p for p in parts if p)


def _profiles(known: Mapping[str, Profile] | None) -> tuple[Mapping[str, Profile], list[str]]:
    if known is not None:
        return known, []
    try:
        return profiles(profile_folders()), []
    except BoardError as error:
        # What only wants to know its cores must not fail over a profile.
        return profiles(), [f"{error}; the profiles of your folders are left out"]


def _unknown(release: str, contained: str) -> str:
    if release and contained:
        return (
            f"a Jetson (Jetson Linux {release}), but which one cannot be read in this container, {GENERIC} stands in: "
            "mount the host's /sys/firmware/devicetree/base read-only at /proc/device-tree"
        )
    return f"no profile is for this machine, {GENERIC} stands in"


def _usable(allowed: int | None, quota: float | None) -> int | None:
    if quota is None:
        return allowed
    # Rounded down: a thread more than the quota covers is stopped in the middle of frames.
    whole = max(1, int(quota))
    return whole if allowed is None else min(allowed, whole)


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def _device_tree(root: Path, name: str) -> str:
    return word(root / "proc/device-tree" / name) or word(root / "sys/firmware/devicetree/base" / name)


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """One dictionary per core, keys in lower case. ARM kernels add one of the whole machine at the end."""
    blocks = []
    for block in word(root / "proc/cpuinfo").split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        blocks.append({key.strip().lower(): value.strip() for key, value in pairs})
    return [b for b in blocks if b]


def _architecture(root: Path, blocks: list[dict[str, str]]) -> str:
    if root == _LIVE:
        return os.uname().machine
    if arch := word(root / "proc/sys/kernel/arch"):
        return arch
    if any("flags" in b for b in blocks):
        return "x86_64"
    generation = next((b["cpu architecture"] for b in blocks if "cpu architecture" in b), "")
    return {"8": "aarch64", "7": "armv7l"}.get(generation, "")


def _cpu_model(blocks: list[dict[str, str]]) -> str:
    names = [b["model name"] for b in blocks if b.get("model name")]
    if not names:
        names = [n for n in map(_arm_core, blocks) if n]
    return " + ".join(dict.fromkeys(" ".join(n.split()) for n in names))


def _arm_core(block: dict[str, str]) -> str:
    try:
        key = (int(block["cpu implementer"], 16), int(block["cpu part"], 16))
    except (KeyError, ValueError):
        return ""
    return _ARM_CORES.get(key, f"ARM core {key[0]:#x}/{key[1]:#x}")


def _flags(blocks: list[dict[str, str]]) -> tuple[str, ...]:
    # Only what every core has: with big and little cores a thread may land on either.
    cores = [set((b.get("flags") or b["features"]).split()) for b in blocks if "flags" in b or "features" in b]
    return tuple(f for f in FLAGS if cores and all(f in core for core in cores))


def _allowed_cores(root: Path, blocks: list[dict[str, str]]) -> int | None:
    if root == _LIVE and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    listed = re.search(r"^Cpus_allowed_list:\s*([0-9,-]+)\s*$", word(root / "proc/self/status"), re.MULTILINE)
    present = sum("processor" in b for b in blocks)
    if not listed:
        return present or None
    ranges = (part.partition("-") for part in listed[1].split(",") if part)
    allowed = sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
    # The list may name cores that could be plugged in but are not there.
    return min(allowed, present) if present else allowed


def _total_memory(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", word(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _os_name(root: Path) -> str:
    text = word(root / "etc/os-release") or word(root / "usr/lib/os-release")
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?', text, re.MULTILINE)
    return found[1] if found else ""


def _model(root: Path, blocks: list[dict[str, str]]) -> str:
    """A board's own name. Containers hide the device tree, but not the SoC driver's word nor the CPUs'."""
    tree = _device_tree(root, "model") or word(root / "sys/devices/soc0/machine")
    return tree or next((b["model"] for b in blocks if "model" in b and "flags" not in b), "") or _pc_model(root)


def _pc_model(root: Path) -> str:
    parts = (word(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    return " ".join(p for p in parts if p)
