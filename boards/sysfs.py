"""Small files of /proc and /sys that are read again and again, each through one descriptor that stays open."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_MOST = 8192  # more than any file that is read again and again has to say


class Source:
    """One file. The kernel writes it anew for every read from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def text(self) -> str | None:
        """What the file says now, stripped; None where it cannot be read."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._descriptor, _MOST, 0).decode("ascii", "replace").strip(" \n\0")
        except OSError:
            # A core that goes offline takes its files along; the next read looks for new ones.
            self.close()
            return None

    def number(self) -> int | None:
        """The whole number at the beginning of the file; None where there is none."""
        text = self.text()
        try:
            return int(text.split(maxsplit=1)[0]) if text else None
        except ValueError:
            return None

    def close(self) -> None:
        """Give the descriptor back; calling it twice is allowed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def readable(path: Path) -> Source | None:
    """A source of a file that may be opened; None where it is absent or forbidden."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    os.close(descriptor)
    return Source(path)


def word(path: Path) -> str:
    """What a file that is read once says, stripped; empty where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip(" \n\0")
    except OSError:
        return ""


def numbered(folder: Path, pattern: str) -> list[Path]:
    """The entries of a folder that fit a glob, in the order of the numbers in their names."""
    return sorted(folder.glob(pattern), key=lambda path: (_digits(path.name), path.name))


def distinct(names: Iterable[str]) -> list[str]:
    """The names in their order; one that was there before gets a number, as in "core#2"."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name}#{seen[name]}" if seen[name] > 1 else name)
    return found


def _digits(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in "".join(c if c.isdecimal() else " " for c in name).split())
