"""Every finding has a tree where it appears and one where it does not: the faults are put into trees of boards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.boards import checks_access
from edgeseg.boards.detect import detect
from edgeseg.boards.doctor import CHECKS, examine
from edgeseg.boards.findings import (
    CAP_IPC_LOCK,
    CAP_SYS_NICE,
    UNLIMITED,
    DeviceState,
    EngineState,
    Finding,
    Machine,
    Process,
    Severity,
    current_process,
)
from edgeseg.boards.profile import profiles
from edgeseg.boards.telemetry import Telemetry

USER = Process(
    uid=4242,
    gids=frozenset({4242}),
    rtprio=80,
    memlock_bytes=UNLIMITED,
    capabilities=0,
    libc="glibc 2.39",
    packages={"numpy": "2.4.6", "ai-edge-litert": "2.3.0"},
    now=1.79e9,
    user="ada",
)


def unverified(*names: str) -> EngineState:
    devices = tuple(DeviceState(d, listed=True, usable=True, verified=d not in ("cuda", "npu")) for d in names)
    return EngineState("onnxruntime", "pip install x", "1.0", devices=devices)


def engine(name: str, version: str | None = "1.0", **devices: str) -> EngineState:
    """Devices by name: "" works, "absent" is not listed, anything else is why it fails."""
    states = [DeviceState(d, listed=why != "absent", usable=not why, reason=why) for d, why in devices.items()]
    return EngineState(name, f"pip install 'edgeseg[{name}]'", version, devices=tuple(states))


ENGINES = (
    engine("onnxruntime", tensorrt="absent", cuda="absent", cpu=""),
    engine("openvino", npu="absent", gpu="absent", cpu=""),
    engine("litert", cpu=""),
)

Make = Callable[..., Machine]


@pytest.fixture
def make(unpack: Callable[[str], Path]) -> Make:
    """A machine with nothing wrong but what its tree says; `files` are written into the tree, None removes one."""

    def machine(name: str, files: Mapping[str, str | None] | None = None, **more: object) -> Machine:
        root = unpack(name)
        telemetry = Telemetry(root)
        for path in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor"):
            path.write_text("performance\n")
        for path, text in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).unlink(missing_ok=True)
            if text is not None:
                (root / path).write_text(text)
        board = detect(root, profiles())
        with telemetry:
            reading = telemetry.read()
        facts = {"process": USER, "engines": ENGINES, "reading": reading, **more}
        return Machine(root=root, board=board, profile=profiles()[board.profile], **facts)  # type: ignore[arg-type]

    return machine


def found(machine: Machine, code: str) -> Finding | None:
    matching = [finding for finding in examine(machine) if finding.code == code]
    assert len(matching) <= 1
    return matching[0] if matching else None


def severity(machine: Machine, code: str) -> Severity | None:
    finding = found(machine, code)
    return finding and finding.severity


def test_a_healthy_board_is_left_alone(make: Make, tmp_path: Path) -> None:
    machine = make("intel-n100", {"dev/dri/renderD128": ""})
    (machine.root / "dev/dri/renderD128").chmod(0o666)
    assert examine(machine) == []


def test_every_finding_says_why_and_what_to_do(make: Make) -> None:
    faults = {
        "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 1000 500 5\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "powersave\n",
        "sys/class/thermal/cooling_device0/cur_state": "1\n",
        "sys/fs/cgroup/memory.max": "104857600\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        "proc/self/cgroup": "0::/\n",
    }
    process = replace(USER, rtprio=0, memlock_bytes=65536, now=3600.0)
    machine = make("jetson-orin-nano-8gb", faults, process=process, engines=())
    findings = examine(machine)
    assert len(findings) >= 7
    for finding in findings:
        assert finding.code
        assert all(text and "\n" not in text for text in (finding.what, finding.why, finding.fix))
    order = [list(Severity).index(finding.severity) for finding in findings]
    assert order == sorted(order)


def test_every_check_is_of_some_use() -> None:
    assert len(CHECKS) == len(set(CHECKS))


@pytest.mark.parametrize(
    ("board", "governor", "preference", "said"),
    [
        ("raspberry-pi-5", "ondemand", None, "scaling_governor"),
        ("jetson-orin-nano-devkit", "schedutil", None, "jetson_clocks"),
        ("intel-n100", "powersave", "balance_performance", "scaling_governor"),
        ("intel-n100", "powersave", "performance", None),
        ("raspberry-pi-5", "performance", None, None),
    ],
)
def test_governor(make: Make, board: str, governor: str, preference: str | None, said: str | None) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    files = {f"{policy}/scaling_governor": governor, f"{policy}/energy_performance_preference": preference}
    finding = (
        found(make(board, files), "governor") if board != "intel-n100" else found(all_cores(make, files), "governor")
    )
    assert (finding is None) == (said is None)
    assert finding is None or (said in finding.fix and governor in finding.what)


def all_cores(make: Make, files: Mapping[str, str | None]) -> Machine:
    return make(
        "intel-n100", {path.replace("policy0", f"policy{n}"): text for path, text in files.items() for n in range(4)}
    )


def test_power_mode_is_matched_by_its_name(make: Make) -> None:
    slow = found(make("jetson-orin-nano-8gb"), "power-mode")
    assert slow is not None
    assert "25W" in slow.what
    assert slow.fix == "sudo nvpmodel -m 2", "MAXN_SUPER has the id 2 in this tree"
    moved = {"etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=25W >\n< POWER_MODEL ID=7 NAME=MAXN_SUPER >\n"}
    moved["var/lib/nvpmodel/status"] = "pmode:0000"
    again = found(make("jetson-orin-nx-8gb", moved), "power-mode")
    assert again is not None
    assert again.fix == "sudo nvpmodel -m 7"


def test_the_fastest_power_mode_is_left_alone(make: Make) -> None:
    assert found(make("jetson-orin-nano-devkit"), "power-mode") is None
    assert found(make("raspberry-pi-5"), "power-mode") is None


@pytest.mark.parametrize(("bits", "said"), [("0", None), ("50000", None), ("4", "throttled"), ("1", "under-voltage")])
def test_throttling_now(make: Make, bits: str, said: str | None) -> None:
    finding = found(make("raspberry-pi-5", {"sys/devices/platform/soc/soc:firmware/get_throttled": bits}), "throttling")
    assert (finding is None) == (said is None)
    assert finding is None or (said in finding.what and "52 °C" in finding.what)


SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, None),
        (SWAPS, None),
        (SWAPS + "/swapfile file 2097148 0 -2\n", Severity.NOTE),
        (SWAPS + "/dev/zram0 partition 500000 20480 5\n", Severity.WARNING),
    ],
)
def test_swap(make: Make, rows: str | None, expected: Severity | None) -> None:
    machine = make("jetson-orin-nano-devkit", {"proc/swaps": rows})
    assert severity(machine, "swap") == expected
    if expected is Severity.WARNING:
        finding = found(machine, "swap")
        assert finding is not None
        assert "20 MB" in finding.what
        assert "nvzramconfig" in finding.fix


def test_limits_of_control_groups(make: Make) -> None:
    docker = make("intel-n100-docker")
    assert severity(docker, "cpu-quota") is Severity.WARNING
    assert severity(docker, "memory-limit") is Severity.NOTE
    tight = make("imx8m-plus-evk", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{256 << 20}\n"})
    assert severity(tight, "memory-limit") is Severity.WARNING
    assert severity(tight, "cpu-quota") is None
    assert severity(make("intel-n100"), "memory-limit") is None


@pytest.mark.parametrize(("now", "wrong"), [(0.0, True), (1.6e9, True), (1.79e9, False)])
def test_clock(make: Make, now: float, wrong: bool) -> None:
    machine = make("raspberry-pi-5", process=replace(USER, now=now))
    assert severity(machine, "clock") == (Severity.ERROR if wrong else None)


@pytest.mark.parametrize(
    ("process", "lacks"),
    [
        (USER, ()),
        (replace(USER, rtprio=0), ("SCHED_FIFO",)),
        (replace(USER, memlock_bytes=8 << 20), ("locked memory",)),
        (replace(USER, rtprio=0, memlock_bytes=65536), ("SCHED_FIFO", "locked memory")),
        (replace(USER, rtprio=0, memlock_bytes=65536, capabilities=1 << CAP_SYS_NICE | 1 << CAP_IPC_LOCK), ()),
        (replace(USER, uid=0, rtprio=0), ("SCHED_FIFO",)),
    ],
    ids=["allowed", "no priority", "no locking", "neither", "capabilities", "root of a container"],
)
def test_realtime(make: Make, process: Process, lacks: tuple[str, ...]) -> None:
    finding = found(make("intel-n100", process=process), "realtime")
    assert (finding is not None) == bool(lacks)
    assert all(finding is not None and word in finding.what for word in lacks)
    assert finding is None or "ada - rtprio" in finding.fix


def test_realtime_in_a_container(make: Make) -> None:
    finding = found(make("intel-n100-docker", process=replace(USER, rtprio=0)), "realtime")
    assert finding is not None
    assert finding.fix.startswith("docker run --cap-add=SYS_NICE")


GROUPS = {"etc/group": "root:x:0:\nvideo:x:44:ada\nrender:x:993:\n"}


@pytest.mark.parametrize(
    ("board", "node", "code"),
    [
        ("intel-n100", "dev/dri/renderD128", "gpu-permission"),
        ("intel-core-ultra-155h", "dev/accel/accel0", "npu-permission"),
        ("jetson-orin-nano-devkit", "dev/nvmap", "gpu-permission"),
    ],
)
def test_a_device_that_may_not_be_opened(make: Make, board: str, node: str, code: str) -> None:
    machine = make(board, {**GROUPS, node: ""})
    (machine.root / node).chmod(0o660)
    finding = found(machine, code)
    assert finding is not None
    assert finding.severity is Severity.WARNING
    assert finding.fix.endswith("ada, then log in again")
    assert f"/{node}" in finding.what
    (machine.root / node).chmod(0o666)
    assert found(machine, code) is None


def test_a_member_of_the_group_may(make: Make) -> None:
    node = "dev/dri/renderD128"
    machine = make("intel-n100", {**GROUPS, node: ""})
    (machine.root / node).chmod(0o660)
    gid = (machine.root / node).stat().st_gid
    member = replace(machine, process=replace(USER, gids=frozenset({gid})))
    assert found(member, "gpu-permission") is None


def test_on_this_machine_the_kernel_says_who_may(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desktop gives its user the GPU by an access list, which the mode of the file does not show."""
    node = "dev/dri/renderD128"
    machine = make("intel-n100", {**GROUPS, node: ""})
    (machine.root / node).chmod(0o660)
    monkeypatch.setattr(checks_access, "_LIVE", machine.root)
    assert found(machine, "gpu-permission") is None, "its owner may"
    monkeypatch.setattr(checks_access.os, "access", lambda path, bits, effective_ids: False)
    assert found(machine, "gpu-permission") is not None


def test_a_gpu_that_the_container_does_not_have(make: Make) -> None:
    files = {".dockerenv": "", "sys/class/drm/renderD129/uevent": ""}
    finding = found(make("intel-n100-docker", files), "gpu-not-in-container")
    assert finding is not None
    assert finding.fix == "docker run --device /dev/dri"
    assert found(make("intel-n100"), "gpu-not-in-container") is None


NPU = "sys/bus/pci/devices/0000:00:0b.0/driver"


@pytest.mark.parametrize(("kernel", "said"), [("6.5.0-45-generic", "older than 6.6"), ("6.8.0-48-generic", "modprobe")])
def test_an_npu_without_its_driver(make: Make, kernel: str, said: str) -> None:
    finding = found(make("intel-core-ultra-155h", {NPU: None, "proc/sys/kernel/osrelease": kernel}), "npu-driver")
    assert finding is not None
    assert said in finding.what + finding.fix
    assert "linux-npu-driver" in finding.fix


def test_an_npu_with_its_driver(make: Make) -> None:
    assert found(make("intel-core-ultra-155h"), "npu-driver") is None
    assert found(make("intel-n100"), "npu-driver") is None


def test_energy_counters(make: Make) -> None:
    machine = make("intel-n100")
    assert found(machine, "rapl") is None
    for counter in machine.root.glob("sys/class/powercap/*/energy_uj"):
        counter.chmod(0o400)
    finding = found(machine, "rapl")
    assert finding is not None
    assert finding.severity is Severity.NOTE
    assert found(replace(machine, process=replace(USER, uid=0)), "rapl") is None


def test_a_stick_is_refused(make: Make) -> None:
    finding = found(make("intel-n100-ncs2"), "stick")
    assert finding is not None
    assert "Myriad X" in finding.what
    assert "2023.0" in finding.why
    assert found(make("intel-n100"), "stick") is None


def test_no_engine_at_all(make: Make) -> None:
    nothing = tuple(replace(state, version=None, devices=()) for state in ENGINES)
    machine = make("raspberry-pi-5", engines=nothing)
    finding = found(machine, "no-engine")
    assert finding is not None
    assert (finding.severity, finding.fix) == (Severity.ERROR, "pip install 'edgeseg[litert]'")
    others = [f for f in examine(machine) if f.code == "missing-engine"]
    assert [f.severity for f in others] == [Severity.NOTE, Severity.NOTE]


@pytest.mark.parametrize(
    ("missing", "expected"), [("openvino", Severity.WARNING), ("onnxruntime", Severity.NOTE), ("", None)]
)
def test_a_missing_engine(make: Make, missing: str, expected: Severity | None) -> None:
    states = tuple(replace(s, version=None, devices=()) if s.name == missing else s for s in ENGINES)
    machine = make("intel-n100", engines=states)
    assert severity(machine, "missing-engine") == expected
    assert severity(machine, "no-engine") is None


@pytest.mark.parametrize(
    "state",
    [
        EngineState("onnxruntime", "pip", None, "ImportError: libfoo.so.1: not found"),
        EngineState("onnxruntime", "pip", None, "died of signal 11 (it said nothing)"),
        engine("onnxruntime", cpu="ran the probe model but its output is off by 3"),
    ],
    ids=["import", "crash", "wrong numbers"],
)
def test_a_broken_engine(make: Make, state: EngineState) -> None:
    machine = make("intel-n100", engines=(state, *ENGINES[1:]))
    finding = found(machine, "broken-engine")
    assert finding is not None
    assert finding.severity is Severity.ERROR
    assert (state.reason or "off by 3") in finding.what
    assert severity(machine, "missing-engine") is None
    assert found(make("intel-n100"), "broken-engine") is None


@pytest.mark.parametrize(
    ("board", "devices", "expected"),
    [
        ("jetson-orin-nano-devkit", {"tensorrt": "no libnvdla_compiler.so", "cuda": "", "cpu": ""}, Severity.ERROR),
        ("jetson-orin-nano-devkit", {"tensorrt": "", "cuda": "no kernel image", "cpu": ""}, Severity.WARNING),
        ("intel-n100", {"tensorrt": "libnvinfer.so.10: not found", "cuda": "absent", "cpu": ""}, Severity.WARNING),
        ("intel-n100", {"tensorrt": "absent", "cuda": "absent", "cpu": ""}, None),
    ],
)
def test_a_provider_that_is_listed_but_broken(
    make: Make, board: str, devices: dict[str, str], expected: Severity | None
) -> None:
    machine = make(board, engines=(engine("onnxruntime", **devices), *ENGINES[1:]))
    assert severity(machine, "broken-device") == expected
    finding = found(machine, "broken-device")
    assert finding is None or any(why in finding.what for why in devices.values() if why not in ("", "absent"))


@pytest.mark.parametrize(("devices", "expected"), [(("cuda", "cpu"), Severity.NOTE), (("cpu",), None)])
def test_a_device_that_works_and_was_never_verified(
    make: Make, devices: tuple[str, ...], expected: Severity | None
) -> None:
    machine = make("jetson-orin-nano-devkit", engines=(unverified(*devices), *ENGINES[1:]))
    assert severity(machine, "unverified-device") == expected
    finding = found(machine, "unverified-device")
    assert finding is None or finding.fix.endswith("--runtime onnxruntime --device cuda --no-isolate")


@pytest.mark.parametrize(
    ("board", "libc", "packages", "version", "expected"),
    [
        ("jetson-xavier-nx", "glibc 2.31", {"numpy": "1.26"}, None, Severity.WARNING),
        ("jetson-xavier-nx", "glibc 2.31", {"numpy": "1.26", "ai-edge-litert": "2.3.0"}, None, Severity.ERROR),
        ("jetson-xavier-nx", "glibc 2.35", {"numpy": "1.26"}, None, None),
        ("intel-n100", "glibc 2.31", {"numpy": "1.26"}, None, None),
        ("jetson-xavier-nx", "", {"numpy": "1.26"}, None, None),
    ],
)
def test_glibc(
    make: Make, board: str, libc: str, packages: dict[str, str], version: str | None, expected: Severity | None
) -> None:
    litert = EngineState("litert", "pip", version)
    machine = make(board, process=replace(USER, libc=libc, packages=packages), engines=(*ENGINES[:2], litert))
    assert severity(machine, "glibc") == expected
    if expected:
        finding = found(machine, "glibc")
        assert finding is not None
        assert "2.31" in finding.what


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({"tflite-runtime": "2.14.0", "numpy": "2.4.6"}, Severity.ERROR),
        ({"tflite-runtime": "2.14.0", "numpy": "1.26.4"}, None),
        ({"tflite-runtime": "2.14.0", "ai-edge-litert": "2.3.0", "numpy": "2.4.6"}, None),
        ({"numpy": "2.4.6"}, None),
    ],
)
def test_tflite_runtime_with_numpy_2(make: Make, packages: dict[str, str], expected: Severity | None) -> None:
    assert severity(make("raspberry-pi-5", process=replace(USER, packages=packages)), "tflite-numpy") == expected


def test_unknown_hardware_and_a_broken_profile(make: Make) -> None:
    unknown = make("raspberry-pi-4")
    finding = found(unknown, "unknown-board")
    assert finding is not None
    assert (finding.severity, "raspberry-pi-4-model-b-rev-1-5.toml" in finding.fix) == (Severity.NOTE, True)
    assert found(unknown, "profile") is None
    broken = replace(make("raspberry-pi-5"), profile_error="x.toml is not a valid board profile: unknown key 'nmae'")
    assert severity(broken, "profile") is Severity.ERROR
    assert found(broken, "unknown-board") is None


def test_this_process(tmp_path: Path) -> None:
    process = current_process()
    assert process.libc.startswith("glibc 2.")
    assert process.packages["numpy"]
    assert process.now > 1.7e9
    assert process.uid not in (-1, None)
    assert process.may(Path("/proc/self/status"), 4)
    assert not process.may(tmp_path / "nowhere", 4)


def test_findings_of_every_tree_can_be_told(make: Make, board_name: str) -> None:
    for finding in examine(make(board_name)):
        assert finding.what
        assert finding.severity is not Severity.ERROR, finding
