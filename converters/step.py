"""What a conversion step is, and what it works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeseg.converters.calibrate import Range
from edgeseg.converters.source import Source
from edgeseg.errors import ConversionError
from edgeseg.types import Array, Format, Precision

Kind = tuple[Format, Precision]


@dataclass(slots=True)
class Workspace:
    """A source on its way: its calibration frames and what has been made of it.

    Attributes:
        source: the trained model.
        folder: where steps write; file names are theirs to choose.
        calibration: raw pixels [1, C, H, W] float32, one a frame.
        made: the main file of each artifact made so far.
        ranges: the range table of the fp32 ONNX model, once collected.
    """

    source: Source
    folder: Path
    calibration: Sequence[Array]
    made: dict[Kind, Path] = field(default_factory=dict)
    ranges: dict[str, Range] | None = None

    def need(self, kind: Kind) -> Path:
        """The file of an artifact made earlier. Raises ConversionError where it could not be made."""
        if kind not in self.made:
            raise ConversionError(f"needs {kind[0]}-{kind[1]}, which failed")
        return self.made[kind]


class Step(Protocol):
    """One conversion; a frozen dataclass whose fields are its options.

    Attributes:
        makes: the format and precision of its result.
        needs: the artifact it starts from; None where that is the source itself.
    """

    @property
    def makes(self) -> Kind: ...  # noqa: D102
    @property
    def needs(self) -> Kind | None: ...  # noqa: D102

    def apply(self, work: Workspace) -> tuple[Path, ...]:
        """Write the artifact into the work folder and return its files, the main one first.

        Raises ConversionError, or UnsupportedModel naming the operator that the target does not have.
        """
        ...
