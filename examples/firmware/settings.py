"""What a device is told: one TOML file, read and checked before anything is loaded."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_ABOVE_ZERO = ("threads", "rate_hz", "deadline_ms", "hide_after_ms", "patience_s")


class SettingsError(Exception):
    """The settings cannot be used. One line that names the file and the field."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between two devices.

    Attributes:
        bundles: paths, the one to use first; the others are for when it cannot be trusted or fails its self-test.
        trusted_keys: .pub files or folders of them; empty: signatures are not asked for (not for the field).
        links: the chain, as in "openvino:int8"; empty for all engines that are installed, the fastest first.
        threads: processor threads of each engine.
        isolate: whether each engine runs in a process of its own, so that its crash is not the end of this one.
        source: as of `edgeseg.open_source`; empty for the frames that come with edgeseg.
        rate_hz: at which files are replayed; a live source has its own rate.
        deadline_ms: from capture to result.
        hide_after_ms: age from which an outline is not shown any more.
        patience_s: how long a source may give nothing before it is opened again; below systemd's WatchdogSec.
        priority: of SCHED_FIFO, 1 to 98; 0 leaves scheduling and memory as they are.
        cpus: processors to run on; empty for all.
        picture: where the newest picture with its outline is kept, once a second; empty for nowhere.
        health: where the counts are kept, once a second; empty for nowhere.
    """

    bundles: tuple[str, ...]
    trusted_keys: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    threads: int = 1
    isolate: bool = False
    source: str = ""
    rate_hz: float = 30.0
    deadline_ms: float = 33.0
    hide_after_ms: float = 200.0
    patience_s: float = 5.0
    priority: int = 0
    cpus: tuple[int, ...] = ()
    picture: str = ""
    health: str = ""


def read_settings(path: Path) -> Settings:
    """Read a settings file; paths in it are relative to it.

    Raises:
        SettingsError: it is missing or no TOML, or a field is unknown, missing, of another type or out of range.
    """
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    _check(path, content)
    values: dict[str, Any] = {}
    for name, value in content.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    for name in ("bundles", "trusted_keys"):
        values[name] = tuple(str(path.parent / entry) for entry in content.get(name, ()))
    return Settings(**values)


def _check(path: Path, content: Mapping[str, Any]) -> None:
    known = {field.name: str(field.type) for field in fields(Settings)}
    for name, value in content.items():
        if name not in known:
            raise SettingsError(f"{path}: unknown field {name!r}, expected one of {', '.join(known)}")
        if not _fits(value, known[name]):
            raise SettingsError(f"{path}: {name} is {value!r}, expected {known[name]}")
        if name in _ABOVE_ZERO and not 0 < value < math.inf:
            raise SettingsError(f"{path}: {name} is {value!r}, expected a number above 0")
    if not content.get("bundles"):
        raise SettingsError(f'{path}: there is no bundle, expected bundles = ["/opt/head.edgeseg"]')


def _fits(value: object, kind: str) -> bool:
    if kind.startswith("tuple"):
        inner = str if "str" in kind else int
        return isinstance(value, list) and all(type(entry) is inner for entry in value)
    if kind == "float":
        return type(value) in (int, float)
    return type(value).__name__ == kind
