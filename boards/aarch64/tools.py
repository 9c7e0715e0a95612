"""The programs of this machine that build and run an aarch64 board."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from edgeseg.errors import BoardError

QEMU = "qemu-aarch64-static"
PROGRAMS = (QEMU, "mmdebstrap")
_PACKAGES = {QEMU: "qemu-user-static", "mmdebstrap": "mmdebstrap"}


def require(*programs: str) -> None:
    """Raise BoardError unless these are installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(_PACKAGES.get(program, program) for program in missing)
        raise BoardError(f"an aarch64 board needs {' and '.join(missing)}: `sudo apt-get install {packages}`")


def call(what: str, command: Sequence[str], seconds: float) -> str:
    """What a program prints. Raises BoardError, with the last line that it said, where it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise BoardError(f"{what} took longer than {seconds:g} s and was ended") from None
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith(("E:", "ERROR:"))]
        raise BoardError(f"{what} failed (exit code {done.returncode}): {(errors or said or ['it said nothing'])[-1]}")
    return done.stdout
