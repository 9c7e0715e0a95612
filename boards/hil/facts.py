"""What a board says of itself to a harness, in one answer: `edgeseg hil probe` there prints it, the runner reads it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgeseg import __version__
from edgeseg.boards.cgroup import memory_groups
from edgeseg.boards.detect import describe, detect
from edgeseg.boards.findings import current_process
from edgeseg.boards.sysfs import word
from edgeseg.boards.telemetry import Telemetry
from edgeseg.errors import BoardError, SignatureError
from edgeseg.manifest import SCHEMA
from edgeseg.trust import trusted_keys

_ROOT = Path("/")
_PREFIX = "hil-"
# Distributions that bring an engine, the first that is installed counts.
_PACKAGES = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
}


class BoardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A board as it was found. What it does not tell is None or empty.

    Attributes:
        edgeseg: the version there.
        manifest_schema: of the newest bundles that it reads.
        description: of the machine, in one line.
        board: what `edgeseg boards detect` found; see `edgeseg.boards.detect.Board`.
        reading: of its telemetry, at that moment.
        engines: the version of each engine that is installed.
        glibc: version, "" where there is none.
        machine: tells one machine from another: a hash of its id, which itself stays there.
        boot_id: tells one boot from another.
        time_unix: by its clock.
        work_free_bytes: of the disk that the harness's folder is on.
        work_writable: whether the user there may write to that folder.
        trusted_keys: ids of the keys that it trusts; None where it trusts any bundle.
        own_bytes: of memory that the probe itself had, and that is free when it has ended.
        oom_kills: processes of its control group, or of the machine, that were killed for want of memory.
        emulation: what holds the limits of an emulated board, as in "cgroup v1"; "" for any other.
    """

    edgeseg: str
    manifest_schema: int
    description: str
    board: dict[str, Any]
    reading: dict[str, Any]
    engines: dict[str, str]
    glibc: str
    machine: str
    boot_id: str
    time_unix: float
    work_free_bytes: int | None
    trusted_keys: tuple[str, ...] | None
    own_bytes: int = 0
    oom_kills: int | None = None
    emulation: str = ""
    work_writable: bool = True
    schema: int = 1

    @property
    def profile(self) -> str:
        """Name of the profile that fits it."""
        return str(self.board.get("profile", ""))

    @property
    def memory_bytes(self) -> int | None:
        """What a command may use: what was available, with what the probe itself had, within the control groups."""
        available = self.reading.get("memory_available_bytes")
        limits = (None if available is None else available + self.own_bytes, self.board.get("memory_bytes"))
        return min((int(limit) for limit in limits if limit is not None), default=None)

    @property
    def conditions(self) -> dict[str, Any]:
        """What must not change while a bundle is measured."""
        names = ("cores", "cpu_quota", "memory_limit_bytes", "power_mode")
        return {name: self.board.get(name) for name in names} | {"governor": self.reading.get("governor")}


def read_facts(work: Path) -> BoardFacts:
    """Look at this machine.

    Args:
        work: the harness's folder, which need not be there yet.

    Raises BoardError where its trusted keys cannot be read.
    """
    board, process = detect(), current_process()
    free, writable = _room(work)
    with Telemetry() as telemetry:
        reading = telemetry.read()
    try:
        trusted = trusted_keys()
    except SignatureError as error:
        raise BoardError(f"the trusted keys of this board cannot be used: {error}") from error
    return BoardFacts(
        edgeseg=__version__,
        manifest_schema=SCHEMA,
        description=describe(board),
        board=msgspec.to_builtins(board),
        reading=msgspec.to_builtins(reading, str_keys=True),
        engines=_engines(process.packages),
        glibc=process.libc.removeprefix("glibc "),
        machine=hashlib.sha256(word(_ROOT / "etc/machine-id").encode()).hexdigest()[:16],
        boot_id=word(_ROOT / "proc/sys/kernel/random/boot_id"),
        time_unix=time.time(),
        work_free_bytes=free,
        work_writable=writable,
        trusted_keys=None if trusted is None else tuple(trusted),
        own_bytes=_own_bytes(),
        oom_kills=_oom_kills(),
        emulation=word(_ROOT / "etc/edgeseg-emulated"),
    )


def run_folder(digest: str) -> str:
    """The name of the folder that a bundle has in the harness's folder."""
    return f"{_PREFIX}{digest[:16]}"


def clear(work: Path) -> None:
    """Remove what runs left in the harness's folder, and nothing else there."""
    for folder in work.glob(f"{_PREFIX}*"):
        if re.fullmatch(rf"{_PREFIX}[0-9a-f]{{16}}", folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def decode_facts(answer: bytes) -> BoardFacts:
    """What the board printed. Raises BoardError where that is something else."""
    try:
        return msgspec.json.decode(answer, type=BoardFacts)
    except msgspec.DecodeError as error:
        said = " ".join(answer[:100].decode(errors="replace").split())
        raise BoardError(f"`edgeseg hil probe` answered {said!r}, expected its facts as JSON") from error


def _engines(packages: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for engine, names in _PACKAGES.items():
        versions = [packages[name] for name in names if name in packages]
        if versions:
            found[engine] = versions[0]
    return found


def _room(folder: Path) -> tuple[int | None, bool]:
    """Free bytes where a folder is or will be, None where unknown; and whether this user may write there."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free, os.access(folder, os.W_OK | os.X_OK)
    except PermissionError:
        return None, False
    except OSError:
        return None, True


def _own_bytes() -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB$", word(_ROOT / "proc/self/status"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _oom_kills() -> int | None:
    counts = []
    for group in memory_groups(_ROOT):
        for name in ("memory.events", "memory.oom_control"):
            text = word(group.limit.with_name(name))
            counts += [int(n) for n in re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE)]
    if counts:
        return max(counts)
    machine = re.search(r"^oom_kill (\d+)$", word(_ROOT / "proc/vmstat"), re.MULTILINE)
    return int(machine[1]) if machine else None
