from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import pytest

from edgeseg.boards.detect import describe, detect

X86 = """processor\t: {n}
vendor_id\t: GenuineIntel
model name\t: {model}
flags\t\t: fpu sse2 avx2 {flags}
"""
ARM = (
    "processor\t: {n}\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\n"
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def x86(root: Path, model: str = "Some CPU", cores: int = 4, flags: str = "avx_vnni", **more: str) -> Path:
    blocks = [X86.format(n=n, model=model, flags=flags) for n in range(cores)]
    files = {"proc/cpuinfo": "\n".join(blocks), "proc/meminfo": "MemTotal:       8388608 kB\nMemFree: 1 kB\n"}
    return tree(root, {**files, **more})


def test_this_machine() -> None:
    board = detect()
    assert board.architecture == platform.machine()
    assert board.cores is not None
    assert 1 <= board.cores <= len(os.sched_getaffinity(0))
    assert board.memory_bytes is not None
    assert 1 << 28 < board.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert describe().startswith(f"{platform.machine()}, ")
    assert "\n" not in describe()


def test_affinity_is_respected() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert detect().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_an_intel_board(tmp_path: Path) -> None:
    more = {
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
        "proc/sys/kernel/osrelease": "6.8.0\n",
        "sys/class/dmi/id/sys_vendor": "ACME\n",
        "sys/class/dmi/id/product_name": "Box 1\n",
    }
    board = detect(x86(tmp_path, "Intel(R) N100", **more))
    assert board.profile == "intel-n100"
    assert (board.architecture, board.cores, board.memory_bytes) == ("x86_64", 4, 8 << 30)
    assert board.flags == ("avx2", "avx_vnni")
    assert (board.os, board.kernel, board.model) == ("Ubuntu 24.04.1 LTS", "6.8.0", "ACME Box 1")
    assert board.notes == ()
    assert describe(board) == "x86_64, Intel(R) N100, 4 cores, 8.0 GiB, avx_vnni"


@pytest.mark.parametrize(
    ("compatible", "model", "profile"),
    [
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", "Raspberry Pi 5 Model B Rev 1.0\0", "raspberry-pi-5"),
        ("nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0", "Orin Nano\0", "jetson-orin-nano"),
        ("nvidia,p3767-0000\0nvidia,tegra234\0", "Orin NX\0", "jetson-orin-nx-16gb"),
        ("nvidia,p9999-0000\0nvidia,tegra234\0", "Orin Next\0", "generic-cpu"),
    ],
)
def test_arm_boards_by_their_device_tree(tmp_path: Path, compatible: str, model: str, profile: str) -> None:
    cores = "\n".join(ARM.format(n=n) for n in range(4)) + "\nHardware\t: whatever\n"
    files = {"proc/cpuinfo": cores, "proc/device-tree/compatible": compatible, "proc/device-tree/model": model}
    board = detect(tree(tmp_path, files))
    assert (board.profile, board.model) == (profile, model.rstrip("\0"))
    assert board.compatible == tuple(compatible.rstrip("\0").split("\0"))
    assert (board.architecture, board.cpu_model, board.cores, board.flags) == ("aarch64", "Cortex-A76", 4, ("asimddp",))
    assert describe(board) == "aarch64, Cortex-A76, 4 cores, asimddp"


def test_only_flags_of_every_core_count(tmp_path: Path) -> None:
    big_little = X86.format(n=0, model="X", flags="avx_vnni") + "\n" + X86.format(n=1, model="X", flags="")
    assert detect(tree(tmp_path, {"proc/cpuinfo": big_little})).flags == ("avx2",)


@pytest.mark.parametrize(("listed", "cores"), [("0-1", 2), ("0,2-3", 3), ("0-255", 4), ("3", 1)])
def test_affinity_of_a_recorded_tree(tmp_path: Path, listed: str, cores: int) -> None:
    assert detect(x86(tmp_path, **{"proc/self/status": f"Cpus_allowed_list:\t{listed}\n"})).cores == cores


@pytest.mark.parametrize(
    ("files", "cores", "gib"),
    [
        ({"sys/fs/cgroup/a/b/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/memory.max": f"{1 << 30}"}, 2, 1),
        ({"sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 1, 8),
        ({"sys/fs/cgroup/a/cpu.max": "10000 100000", "sys/fs/cgroup/a/memory.max": "max"}, 1, 8),
        ({"sys/fs/cgroup/cpu.max": "300000 100000", "sys/fs/cgroup/memory.max": f"{2 << 30}"}, 3, 2),
        ({"sys/fs/cgroup/cpu.max": "900000 100000", "sys/fs/cgroup/memory.max": f"{64 << 30}"}, 4, 8),
    ],
    ids=["own", "ancestor", "below one", "namespace root", "above the machine"],
)
def test_limits_of_cgroup_v2(tmp_path: Path, files: dict[str, str], cores: int, gib: int) -> None:
    board = detect(x86(tmp_path, **{"proc/self/cgroup": "0::/a/b\n", **files}))
    assert (board.cores, board.memory_bytes) == (cores, gib << 30)
    assert any("control groups" in note for note in board.notes) == (cores < 4 or gib < 8)


def test_limits_of_cgroup_v1(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 << 30}\n",
        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9223372036854771712\n",
    }
    board = detect(x86(tmp_path, **files))
    assert (board.cores, board.memory_bytes) == (2, 3 << 30)


def test_nothing_to_read_is_not_a_guess(tmp_path: Path) -> None:
    board = detect(tmp_path)
    assert (board.architecture, board.cpu_model, board.cores, board.memory_bytes) == ("", "", None, None)
    assert board.profile == "generic-cpu"
    assert any("no profile" in note for note in board.notes)
    assert describe(board) == ""


def test_garbage_does_not_break_detection(tmp_path: Path) -> None:
    files = dict.fromkeys(
        ("proc/meminfo", "proc/self/status", "proc/self/cgroup", "etc/os-release", "sys/fs/cgroup/cpu.max"), "\x01:::\n"
    )
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_bytes(b"\xff\xfe: \x80\n\n\nCPU part : zz\nCPU implementer: 0x\n")
    board = detect(tree(tmp_path, files))
    assert msgspec.json.encode(board)


def test_a_broken_profile_of_a_user_is_a_note_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.toml").write_text("nmae = 'mine'\n")
    monkeypatch.setenv("EDGESEG_BOARDS", str(folder))
    board = detect(x86(tmp_path / "root", "Intel(R) N100"))
    assert board.profile == "intel-n100"
    (note,) = (n for n in board.notes if "left out" in n)
    assert "unknown key 'nmae'" in note


def test_a_users_board_is_found_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.toml").write_text("name = 'mine'\ntitle = 'Mine'\n[match]\ncpu_model = ['Cart']\n")
    monkeypatch.setenv("EDGESEG_BOARDS", str(folder))
    assert detect(x86(tmp_path / "root", "ACME Cart 3000")).profile == "mine"


def test_a_stick_of_a_device_without_a_profile_is_still_refused(tmp_path: Path) -> None:
    stick = {"sys/bus/usb/devices/1-1/idVendor": "03e7\n", "sys/bus/usb/devices/1-1/idProduct": "f63b\n"}
    (note,) = (n for n in detect(x86(tmp_path, "Intel(R) N100", **stick)).notes if "Myriad" in n)
    assert "2023.0" in note
