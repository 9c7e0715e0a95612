"""Every choice of a conversion as one TOML file, checked in full before torch is imported.

    [quantize]
    calibration_frames = 64
    bias_correction = false

    [evaluate]
    frames = 48
    golden_frames = 8

    [gates]
    agreement_min = 0.995
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.errors import BadInput
from edgeseg.types import Gates


@dataclass(frozen=True, slots=True)
class Quantize:
    """How int8 artifacts are made.

    Attributes:
        calibration_frames: at most this many, evenly spaced over the calibration folder.
        per_channel: ONNX weights have one scale per output channel.
        bias_correction: NNCF's fast bias correction for OpenVINO.
        unify_concat: NNCF's shared scale for the inputs of a Concat, which harms U-Nets.
    """

    calibration_frames: int = 64
    per_channel: bool = True
    bias_correction: bool = False
    unify_concat: bool = False


@dataclass(frozen=True, slots=True)
class Evaluate:
    """How artifacts are compared with their source.

    Attributes:
        frames: at most this many, evenly spaced over the evaluation folder.
        golden_frames: of those, how many stay in the bundle with the source's results.
    """

    frames: int = 64
    golden_frames: int = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """The choices of a conversion. Gates that are None are off; in TOML a gate is switched off by `false`."""

    quantize: Quantize = field(default_factory=Quantize)
    evaluate: Evaluate = field(default_factory=Evaluate)
    gates: Gates = field(default_factory=Gates)


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe.

    Raises:
        BadInput: for a file that is not TOML, an unknown section or option, or a value of the wrong type or range.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}") from error
    _refuse_unknown(content, Recipe, str(path))
    sections = {"quantize": Quantize, "evaluate": Evaluate, "gates": Gates}
    for name, kind in sections.items():
        if name in content:
            _refuse_unknown(content[name], kind, f"{path} [{name}]")
    if "gates" in content:
        content["gates"] = {k: None if v is False else v for k, v in content["gates"].items()}
    try:
        recipe = msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path}: {error}") from error
    counts = {
        "calibration_frames": recipe.quantize.calibration_frames,
        "frames": recipe.evaluate.frames,
        "golden_frames": recipe.evaluate.golden_frames,
    }
    for option, count in counts.items():
        if count < 1:
            raise BadInput(f"{path}: {option} is {count}, expected at least 1")
    return recipe


def _refuse_unknown(content: Any, kind: type[Any], where: str) -> None:
    if not isinstance(content, dict):
        raise BadInput(f"{where} is {content!r}, expected a section of options")
    known = [f.name for f in fields(kind)]
    for name in content:
        if name not in known:
            raise BadInput(f"{where} has the unknown option {name!r}, expected some of {', '.join(known)}")
