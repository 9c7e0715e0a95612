"""Checks of the engines: missing, broken, listed but not working, too new for this system."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeseg.boards.findings import EngineState, Finding, Machine, Severity

LITERT_GLIBC = (2, 34)  # what the aarch64 wheel needs, though its name says 2.27


def missing(machine: Machine) -> Iterable[Finding]:
    """Engines of the profile that are not installed, in its order."""
    wanted = [state for e in machine.profile.engines if (state := machine.engine(e.runtime)) is not None]
    none = bool(wanted) and not any(state.version is not None for state in machine.engines)
    for place, state in enumerate(wanted):
        if state.version is not None or state.reason:
            continue
        if none and place == 0:
            yield Finding(
                "no-engine",
                Severity.ERROR,
                "no engine is installed",
                f"nothing can run; {state.name} is the first choice for {machine.profile.title}",
                state.install,
            )
        else:
            first = place == 0
            yield Finding(
                "missing-engine",
                Severity.WARNING if first else Severity.NOTE,
                f"{state.name} is not installed",
                f"it is number {place + 1} of the runtimes worth trying on {machine.profile.title}",
                state.install,
            )


def broken(machine: Machine) -> Iterable[Finding]:
    """Engines that are installed and do not run the probe model on anything."""
    for state in machine.engines:
        if (state.version is None and not state.reason) or state.works:
            continue
        reason = state.reason or "; ".join(f"{d.name}: {d.reason}" for d in state.devices if d.reason)
        yield Finding(
            "broken-engine",
            Severity.ERROR,
            f"{state.name} is installed but runs nothing: {reason}",
            "artifacts of its format cannot run here",
            f"pip install --force-reinstall {_package(state)}; edgeseg --debug runtimes shows the whole error",
        )


def broken_devices(machine: Machine) -> Iterable[Finding]:
    """Devices that an engine lists and that fail on the probe model: a listed provider is not a working one."""
    preferred = {e.runtime: e.devices[0] for e in machine.profile.engines if e.devices}
    for state in machine.engines:
        for device in state.devices:
            if device.listed and not device.usable and state.works:
                first = preferred.get(state.name) == device.name
                yield Finding(
                    "broken-device",
                    Severity.ERROR if first else Severity.WARNING,
                    f"{state.name} lists {device.name}, which fails: {device.reason}",
                    "edgeseg goes on with the next device, which is slower"
                    + (f"; {device.name} is the first choice for {machine.profile.title}" if first else ""),
                    _repair(device.name),
                )


def unverified(machine: Machine) -> Iterable[Finding]:
    """Devices that work here and that edgeseg's own tests never ran on."""
    for state in machine.engines:
        for device in state.devices:
            if device.usable and not device.verified:
                yield Finding(
                    "unverified-device",
                    Severity.NOTE,
                    f"{state.name} runs on {device.name} here, which edgeseg was not verified on",
                    "it ran the probe model right; its own tests never had this hardware",
                    f"edgeseg verify BUNDLE --runtime {state.name} --device {device.name} --no-isolate",
                )


def glibc(machine: Machine) -> Iterable[Finding]:
    """A wheel that pip installs and the loader refuses."""
    found = re.match(r"glibc (\d+)\.(\d+)", machine.process.libc)
    state = machine.engine("litert")
    if machine.board.architecture != "aarch64" or not found or state is None or state.works:
        return
    if (int(found[1]), int(found[2])) >= LITERT_GLIBC:
        return
    installed = "ai-edge-litert" in machine.process.packages
    yield Finding(
        "glibc",
        Severity.ERROR if installed else Severity.WARNING,
        f"ai-edge-litert needs glibc 2.34 on aarch64, this system has {machine.process.libc.split()[1]}",
        "pip installs its wheel, which is tagged for 2.27, and importing it fails",
        "pip install 'edgeseg[onnx]' here, or a container or a release with glibc 2.35 (Ubuntu 22.04, JetPack 6)",
    )


def tflite_numpy(machine: Machine) -> Iterable[Finding]:
    """tflite-runtime was built for numpy 1: with numpy 2 it imports, then fails."""
    packages = machine.process.packages
    if "tflite-runtime" not in packages or "ai-edge-litert" in packages:
        return
    if int(packages.get("numpy", "0").split(".")[0]) >= 2:
        yield Finding(
            "tflite-numpy",
            Severity.ERROR,
            f"tflite-runtime {packages['tflite-runtime']} does not work with numpy {packages['numpy']}",
            "it imports, and fails with SystemError when a model is loaded",
            "pip install 'edgeseg[tflite]' where there is a wheel (not on 32-bit ARM), else pip install 'numpy<2'",
        )


def _package(state: EngineState) -> str:
    return {"litert": "ai-edge-litert"}.get(state.name, state.name)


def _repair(device: str) -> str:
    """What usually helps; the reason in front says more."""
    return {
        "tensorrt": "install the TensorRT this onnxruntime was built for (Jetson: sudo apt install nvidia-jetpack)",
        "cuda": "install the CUDA and cuDNN this onnxruntime was built for, and a driver that is new enough",
        "gpu": "sudo apt install intel-opencl-icd, and join the group render",
        "npu": "install the driver from https://github.com/intel/linux-npu-driver/releases, and join the group render",
    }.get(device, "edgeseg --debug runtimes shows the whole error")
