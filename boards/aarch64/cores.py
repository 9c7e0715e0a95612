"""The cores that qemu can be, and what a kernel on them says of itself: engines choose their code by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BadInput

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
_ARMV8_2 = f"{_BASE} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_ARM_LTD = 0x41


@dataclass(frozen=True, slots=True)
class Core:
    """A kind of core, by qemu's name.

    Attributes:
        boards: that have it, for people.
        features: as /proc/cpuinfo lists them.
        part, variant, revision: as its main ID register has them.
    """

    boards: str
    features: str
    part: int
    variant: int
    revision: int

    @property
    def midr(self) -> int:
        """The main ID register."""
        return _ARM_LTD << 24 | self.variant << 20 | 0xF << 16 | self.part << 4 | self.revision


# No "max": with its SVE, qemu 7.2 gives wrong results in int8.
CORES = {
    "cortex-a53": Core("Raspberry Pi 3, Zynq UltraScale+, i.MX 8M", f"{_BASE} cpuid", 0xD03, 0, 4),
    "cortex-a72": Core("Raspberry Pi 4", f"{_BASE} cpuid", 0xD08, 0, 3),
    "cortex-a76": Core("Raspberry Pi 5, RK3588; int8 dot products", _ARMV8_2, 0xD0B, 4, 1),
}
DEFAULT_CORE = "cortex-a76"


def core(name: str) -> Core:
    """A core by qemu's name. Raises BadInput for one that is not in CORES."""
    if name not in CORES:
        raise BadInput(f"{name!r} is no core of the aarch64 board, expected one of {', '.join(CORES)}")
    return CORES[name]


def write_cores(root: Path, core: Core, count: int) -> None:
    """Let proc/cpuinfo and sys below a root say that there are so many of this core."""
    (root / "proc").mkdir(exist_ok=True)
    blocks = [_block(core, index) for index in range(count)]
    (root / "proc/cpuinfo").write_text("\n".join(blocks), encoding="ascii")
    for index in range(count):
        folder = root / f"sys/devices/system/cpu/cpu{index}/regs/identification"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "midr_el1").write_text(f"{core.midr:#018x}\n", encoding="ascii")


def _block(core: Core, index: int) -> str:
    return (
        f"processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: {core.features}\n"
        f"CPU implementer\t: {_ARM_LTD:#x}\nCPU architecture: 8\nCPU variant\t: {core.variant:#x}\n"
        f"CPU part\t: {core.part:#05x}\nCPU revision\t: {core.revision}\n"
    )
