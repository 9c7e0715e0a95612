"""Board profiles: what is known of a board before it is measured, one TOML file each in boards/profiles."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from edgeseg.errors import BadInput, BoardError

GENERIC = "generic-cpu"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of a board. One that is verified names its source; the others are from memory of a datasheet.

    Attributes:
        value: the figure.
        unit: as in "GB/s"; empty for plain words.
        source: where it was read or how it was measured.
        verified: read in that source, or measured, for this project.
    """

    value: float | str
    unit: str = ""
    source: str = ""
    verified: bool = False

    def __post_init__(self) -> None:
        if self.verified and not self.source:
            raise ValueError("a verified figure needs a source")


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a board is recognised: any entry that is found is enough.

    Attributes:
        compatible: entries of the device tree's `compatible`, exact.
        cpu_model: parts of the CPU's name, as whole words.
    """

    compatible: tuple[str, ...] = ()
    cpu_model: tuple[str, ...] = ()


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A runtime worth trying on a board, in the order of the profile."""

    runtime: str
    devices: tuple[str, ...] = ("cpu",)
    note: str = ""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a board.

    Attributes:
        name: of the profile and its file.
        title: for people.
        architectures: as `uname -m` gives them; empty for any.
        verified: whether edgeseg itself ran on such a board.
    """

    name: str
    title: str
    architectures: tuple[str, ...] = ()
    verified: bool = False
    match: Match = Match()
    engines: tuple[Engine, ...] = ()
    figures: dict[str, Figure] = {}
    notes: tuple[str, ...] = ()


def decode_profile(text: str, where: str) -> Profile:
    """A profile from TOML. Raises BoardError where it is malformed; `where` names it in the message."""
    try:
        return msgspec.toml.decode(text, type=Profile)
    except msgspec.DecodeError as error:
        raise BoardError(f"{where} is not a valid board profile: {error}") from error


@cache
def profiles() -> dict[str, Profile]:
    """All profiles by name, in the order of their names. Raises BoardError where one is malformed."""
    found = {}
    for entry in sorted(files("edgeseg.boards.profiles").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            profile = decode_profile(entry.read_text(encoding="utf-8"), entry.name)
            if entry.name != f"{profile.name}.toml":
                raise BoardError(f"{entry.name} holds the profile {profile.name!r}, expected the name of its file")
            found[profile.name] = profile
    return found


def profile(name: str) -> Profile:
    """A profile by name. Raises BadInput for an unknown one."""
    if name not in profiles():
        raise BadInput(f"unknown board {name!r}, expected one of {', '.join(profiles())}")
    return profiles()[name]


def match_profile(compatible: tuple[str, ...], cpu_model: str) -> Profile:
    """The profile of a board by its device tree, else by its CPU's name, else generic-cpu."""
    known = profiles().values()
    for candidate in known:
        if set(candidate.match.compatible) & set(compatible):
            return candidate
    words = cpu_model.lower().replace("(r)", " ").replace("(tm)", " ").split()
    for candidate in known:
        if any(model.lower() in words for model in candidate.match.cpu_model):
            return candidate
    return profile(GENERIC)
