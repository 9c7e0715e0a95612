"""The root of an aarch64 board: a few Debian packages for arm64, unpacked, not configured: no privilege is needed."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

from edgeseg.boards.aarch64.board import PYTHON
from edgeseg.boards.aarch64.tools import call

SUITE = "bookworm"
PACKAGES = (PYTHON, "libstdc++6")
_MIRROR = "http://deb.debian.org/debian"
_UNPACK_S = 900.0


def unpack(root: Path, mirror: str = _MIRROR) -> dict[str, str]:
    """Fill a new root; apt checks the packages against Debian's signature.

    Returns:
        The version of every package that is there.

    Raises:
        BoardError: where mmdebstrap fails, as without a network.
    """
    shutil.rmtree(root, ignore_errors=True)
    how = ("--mode=chrootless", "--variant=extract", "--architectures=arm64", f"--include={','.join(PACKAGES)}")
    call("mmdebstrap", ["mmdebstrap", *how, SUITE, str(root), mirror], _UNPACK_S)
    return _versions(root)


def _versions(root: Path) -> dict[str, str]:
    """By the packages' change logs: what is only unpacked is in no database of dpkg."""
    found = {}
    for log in sorted((root / "usr/share/doc").glob("*/changelog.Debian*.gz")):
        with gzip.open(log, "rt", encoding="utf-8", errors="replace") as stream:
            version = re.match(r"\S+ \(([^)]+)\)", stream.readline())
        if version:
            found[log.parent.name] = version[1]
    return found
