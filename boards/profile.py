"""Board profiles: what is known of a board before it is measured, one TOML file each; users add their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from edgeseg.boards.profile_check import check_tables, check_words, plain
from edgeseg.engine_options import EngineChoice
from edgeseg.errors import BadInput, BoardError

GENERIC = "generic-cpu"
FOLDERS = "EDGESEG_BOARDS"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of a board. One that is verified names its source; the others are from memory of a datasheet.

    Attributes:
        value: the figure.
        unit: as in "GB/s"; empty for plain words and counts.
        source: where it was read or how it was measured.
        verified: read in that source, or measured, for this project.
    """

    value: float | str
    unit: str = ""
    source: str = ""
    verified: bool = False


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a board is recognised: any entry that is found is enough.

    Attributes:
        compatible: entries of the device tree's `compatible`, exact.
        model: parts of the board's name, as whole words; asked where the device tree is out of reach, as in containers.
        cpu_model: parts of the CPU's name, as whole words; ? stands for one character.
        memory_gb: least and most physical memory, for boards whose names do not tell them apart.
    """

    compatible: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    cpu_model: tuple[str, ...] = ()
    memory_gb: tuple[float, float] | None = None


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A runtime worth trying on a board, in the order of the profile.

    Attributes:
        runtime: by edgeseg's name.
        devices: of that runtime, best first.
        precisions: of artifacts, best first.
        threads: of the CPU; None where it does not matter much: then as the command says.
        options: what else to tell the engine: see edgeseg.engine_options.OPTIONS.
        note: for people.
    """

    runtime: str
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("int8", "fp32")
    threads: int | None = None
    options: dict[str, str | int | bool] = {}
    note: str = ""


class PowerMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A power mode by its name (ids differ between releases), the fastest first.

    Attributes:
        name: as the board's own tool gives it.
        watts: what it is limited to; None for no limit, or not known.
        source, verified: as of a Figure.
    """

    name: str
    watts: float | None = None
    source: str = ""
    verified: bool = False


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a board.

    Attributes:
        name: of the profile and its file.
        title: for people.
        architectures: as `uname -m` gives them; empty for any.
        verified: whether edgeseg itself ran on such a board.
        refused: why edgeseg does not run on it; empty where it does.
        match: how it is recognised.
        engines: runtimes, best first.
        power_modes: fastest first.
        figures: compute and memory: see profile_check.FIGURES.
        limits: what to stay below: see profile_check.LIMITS.
        notes: for people.
    """

    name: str
    title: str
    architectures: tuple[str, ...] = ()
    verified: bool = False
    refused: str = ""
    match: Match = Match()
    engines: tuple[Engine, ...] = ()
    power_modes: tuple[PowerMode, ...] = ()
    figures: dict[str, Figure] = {}
    limits: dict[str, Figure] = {}
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> tuple[EngineChoice, ...]:
        """The engines for those that load them. Raises BoardError where edgeseg does not run on this board."""
        if self.refused:
            raise BoardError(f"{self.title}: {self.refused}")
        return tuple(EngineChoice(e.runtime, e.devices, e.precisions, e.threads, e.options) for e in self.engines)


def decode_profile(text: str, where: str) -> Profile:
    """A profile from TOML.

    Raises BoardError in one line where it is malformed: `where`, the key, what was expected, the nearest known word.
    """
    try:
        found = msgspec.toml.decode(text)
        check_tables(found, Profile)
        profile = msgspec.convert(found, Profile)
        check_words(profile)
    except (msgspec.DecodeError, ValueError) as error:
        raise BoardError(f"{where} is not a valid board profile: {plain(str(error))}") from error
    return profile


def profile_folders(given: Path | None = None) -> tuple[Path, ...]:
    """Where users keep profiles of their own; of two profiles of one name the earlier folder's counts.

    The folder given, those of $EDGESEG_BOARDS (separated as in $PATH), then $XDG_CONFIG_HOME/edgeseg/boards, which is
    ~/.config/edgeseg/boards where that is not set.

    Raises BadInput where the folder given does not exist; the others need not.
    """
    if given is not None and not given.is_dir():
        raise BadInput(f"{given} is not a folder: give one that holds board profiles (*.toml)")
    named = [Path(part) for part in os.environ.get(FOLDERS, "").split(os.pathsep) if part]
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path(os.environ.get("HOME", "/")) / ".config")
    found = [*([given] if given else []), *named, Path(config) / "edgeseg" / "boards"]
    return tuple(folder for folder in found if folder.is_dir())


def profiles(folders: Sequence[Path] = ()) -> dict[str, Profile]:
    """The profiles of folders, then those that come with edgeseg, by name.

    A user's profile of the same name replaces one of edgeseg's. Raises BoardError where one is malformed.
    """
    found: dict[str, Profile] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            known = _read(path)
            found.setdefault(known.name, known)
    for name, known in _own().items():
        found.setdefault(name, known)
    return found


def profile(name: str, known: Mapping[str, Profile] | None = None) -> Profile:
    """A profile by name. Raises BadInput for an unknown one."""
    known = profiles() if known is None else known
    if name not in known:
        raise BadInput(f"unknown board {name!r}, expected one of {', '.join(known)}")
    return known[name]


def match_profile(
    compatible: Sequence[str],
    cpu_model: str,
    *,
    model: str = "",
    memory_bytes: int | None = None,
    known: Mapping[str, Profile] | None = None,
) -> Profile:
    """The profile of a board by its device tree, else by its name, else by its CPU's name, else generic-cpu.

    Args:
        compatible: the device tree's entries, the most specific first; one profile may claim a module, another its SoC.
        cpu_model: of /proc/cpuinfo.
        model: the board's name.
        memory_bytes: physical memory, None where unknown.
        known: profiles; by default those that come with edgeseg.
    """
    known = profiles() if known is None else known
    for entry in _entries(compatible):
        for candidate in known.values():
            if entry in candidate.match.compatible:
                return candidate
    for candidate in known.values():
        if _any_words(candidate.match.model, model) and _fits(candidate.match.memory_gb, memory_bytes):
            return candidate
    for candidate in known.values():
        if _any_words(candidate.match.cpu_model, cpu_model):
            return candidate
    return known[GENERIC]


def _read(path: Path) -> Profile:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BoardError(f"{path} cannot be read: {reason}") from error
    return _named(decode_profile(text, str(path)), path.name, str(path))


@cache
def _own() -> dict[str, Profile]:
    entries = [e for e in files("edgeseg.boards.profiles").iterdir() if e.name.endswith(".toml")]
    found = [_named(decode_profile(e.read_text(encoding="utf-8"), e.name), e.name, e.name) for e in entries]
    return {profile.name: profile for profile in sorted(found, key=lambda p: p.name)}


def _named(found: Profile, file: str, where: str) -> Profile:
    if file != f"{found.name}.toml":
        raise BoardError(f"{where} holds the profile {found.name!r}, expected the name of its file")
    return found


def _entries(compatible: Sequence[str]) -> Iterable[str]:
    """All entries, and after each the parts of one that joins carrier and module: vendor,p3768-0000+p3767-0005."""
    for entry in compatible:
        yield entry
        vendor, comma, names = entry.partition(",")
        if "+" in names:
            yield from (f"{vendor}{comma}{part.removesuffix('-super')}" for part in reversed(names.split("+")))


def _any_words(patterns: Iterable[str], text: str) -> bool:
    """Whether any of the patterns is a run of whole words of the text; marks such as (R) count for nothing."""
    words = " ".join(re.sub(r"\((r|tm)\)", " ", text.lower()).split())
    return any(
        re.search(rf"(?<!\S){re.escape(pattern.lower()).replace(re.escape('?'), '[^ ]')}(?!\S)", words)
        for pattern in patterns
    )


def _fits(memory_gb: tuple[float, float] | None, memory_bytes: int | None) -> bool:
    return memory_gb is None or memory_bytes is None or memory_gb[0] <= memory_bytes / (1 << 30) <= memory_gb[1]
