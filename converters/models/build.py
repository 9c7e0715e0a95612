"""Every segmenter that edgeseg can build, by name."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from edgeseg.converters.models.edge_unet import EdgeUNet, EdgeUNetOptions
from edgeseg.converters.models.unet import ENCODERS, UNet, UNetOptions
from edgeseg.errors import BadInput

Segmenter = UNet | EdgeUNet
STUDENT = "edge-unet"
ARCHITECTURES = (STUDENT, *ENCODERS)


def build(name: str, **options: Any) -> Segmenter:
    """A segmenter with random weights.

    Args:
        name: "mobilenetv2-unet", "efficientnet-lite0-unet" or "edge-unet".
        options: fields of UNetOptions, or of EdgeUNetOptions for an edge-unet.

    Raises:
        BadInput: for an unknown name, an unknown option or a value out of range.
    """
    if name not in ARCHITECTURES:
        raise BadInput(f"unknown architecture {name!r}, expected one of {', '.join(ARCHITECTURES)}")
    kind = EdgeUNetOptions if name == STUDENT else UNetOptions
    known = {f.name for f in fields(kind)}
    if unknown := sorted(options.keys() - known):
        raise BadInput(f"unknown option {unknown[0]!r} of {name}, expected some of {', '.join(sorted(known))}")
    if name == STUDENT:
        return EdgeUNet(name, EdgeUNetOptions(**options))
    return UNet(name, UNetOptions(**options))


def architecture(model: Segmenter) -> dict[str, Any]:
    """What `build` needs to make this model again: {"name", "options"}."""
    return {"name": model.name, "options": asdict(model.options)}
