"""Which words a board profile may use, and the error that names the nearest one for a word that it may not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec

from edgeseg.engine_options import check_options, check_word
from edgeseg.plugins import ENGINES
from edgeseg.types import Precision

if TYPE_CHECKING:
    from edgeseg.boards.profile import Engine, Figure, PowerMode, Profile

# Every figure and the units it may have; "" is for words and counts.
FIGURES: Mapping[str, tuple[str, ...]] = {
    "cores": ("",),
    "cpu": ("",),
    "cpu_clock": ("MHz",),
    "dla": ("", "TOPS"),
    "fp16": ("TFLOPS",),
    "fp4_sparse": ("TFLOPS",),
    "gpu": ("",),
    "instructions": ("",),
    "int8_dense": ("TOPS",),
    "int8_sparse": ("TOPS",),
    "memory": ("GB",),
    "memory_bandwidth": ("GB/s",),
    "npu": ("", "TOPS"),
    "power": ("W",),
    "sm": ("",),
    "stack": ("",),
}
LIMITS: Mapping[str, tuple[str, ...]] = {
    "kernel": ("",),
    "memory": ("MB",),
    "power": ("W",),
    "temperature": ("°C",),
    "threads": ("",),
}
DEVICES: Mapping[str, tuple[str, ...]] = {
    "litert": ("cpu",),
    "onnxruntime": ("tensorrt", "cuda", "cpu"),
    "openvino": ("npu", "gpu", "cpu"),
}
_CONVERSION = re.compile(r"^(?P<what>.*?) - at `\$(?P<path>[^`]*)`$")


def check_tables(found: object, kind: type[msgspec.Struct], where: str = "") -> None:
    """Raise ValueError for a key that a structure does not have, in it or in any below it."""
    if not isinstance(found, dict):
        return  # the conversion says what it should have been
    hints = get_type_hints(kind)
    for key, value in found.items():
        check_word(key, hints, "key", f" in {where}" if where else "")
        for inner in _structures(hints[key]):
            for name, part in _parts(key, value, hints[key]):
                check_tables(part, inner, f"{where}.{name}" if where else name)


def check_words(profile: Profile) -> None:
    """Raise ValueError for a runtime, device, precision, option, figure or unit that edgeseg does not know."""
    for number, engine in enumerate(profile.engines):
        _check_engine(engine, f"engines[{number}]")
        if engine.runtime in [other.runtime for other in profile.engines[:number]]:
            raise ValueError(f"engines[{number}] is a second {engine.runtime}, expected one with all its devices")
    for table, figures, known in (("figures", profile.figures, FIGURES), ("limits", profile.limits, LIMITS)):
        for name, figure in figures.items():
            check_word(name, known, "figure", f" in {table}")
            _check_unit(figure, known[name], f"{table}.{name}")
            _check_source(figure, f"{table}.{name}")
    for number, mode in enumerate(profile.power_modes):
        _check_source(mode, f"power_modes[{number}]")
    if profile.match.memory_gb is not None and profile.match.memory_gb[0] > profile.match.memory_gb[1]:
        raise ValueError("match.memory_gb is not in order, expected the least and the most")


def plain(message: str) -> str:
    """A message of the conversion with the path in front, as in "engines[0].threads: Expected `int`, got `str`"."""
    found = _CONVERSION.match(message)
    path = found["path"].lstrip(".") if found else ""
    return f"{path}: {found['what']}" if found and path else message.replace(" - at `$`", "")


def _check_engine(engine: Engine, where: str) -> None:
    check_word(engine.runtime, ENGINES, "runtime", f" in {where}")
    for device in engine.devices:
        check_word(device, DEVICES[engine.runtime], "device", f" of {engine.runtime} in {where}")
    for precision in engine.precisions:
        check_word(precision, [str(p) for p in Precision], "precision", f" in {where}")
    if engine.threads is not None and engine.threads < 1:
        raise ValueError(f"{where}.threads is {engine.threads}, expected 1 or more")
    check_options(engine.runtime, engine.options, where)


def _check_unit(figure: Figure, units: tuple[str, ...], where: str) -> None:
    if figure.unit not in units:
        expected = " or ".join(unit or "no unit" for unit in units)
        raise ValueError(f"{where} has the unit {figure.unit!r}, expected {expected}")
    if figure.unit and isinstance(figure.value, str):
        raise ValueError(f"{where} is {figure.value!r} {figure.unit}, expected a number")
    if not isinstance(figure.value, str) and figure.value <= 0:
        raise ValueError(f"{where} is {figure.value:g}, expected more than 0: leave out what is not known")


def _check_source(figure: Figure | PowerMode, where: str) -> None:
    if figure.verified and not figure.source:
        raise ValueError(f"{where} is verified but has no source: say where it was read or how it was measured")


def _structures(hint: Any) -> list[type[msgspec.Struct]]:
    """The structures that a type holds: itself, or what a tuple or a dictionary is of."""
    return [part for part in (hint, *get_args(hint)) if isinstance(part, type) and issubclass(part, msgspec.Struct)]


def _parts(key: str, value: object, hint: Any) -> list[tuple[str, object]]:
    if isinstance(value, list):
        return [(f"{key}[{number}]", part) for number, part in enumerate(value)]
    if isinstance(value, dict) and get_args(hint):
        return [(f"{key}.{name}", part) for name, part in value.items()]
    return [(key, value)]
