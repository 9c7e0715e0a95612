"""What a pruning run remembers after every round, so that a killed one goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
from torch import nn

from edgeseg.converters.channels import fit_channels
from edgeseg.converters.prune_report import Figures, Round
from edgeseg.converters.sensitivity import Probe
from edgeseg.converters.widths import Widths
from edgeseg.errors import BadInput, ConversionError

_KEY = "edgeseg-prune"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        settings: what makes two runs the same.
        before: the dense network.
        layers: output channels of each of its layers.
        whole: branches that stay whole, with the reason.
        sensitivity: the scan's results.
        ratio: share of channels that was found for the target.
        sizes: channels of the branches that may be pruned.
        widths: what is to stay of them.
        rounds: those that are done.
    """

    settings: dict[str, Any]
    before: Figures
    layers: dict[str, int]
    whole: dict[str, str]
    sensitivity: tuple[Probe, ...]
    ratio: float
    sizes: Widths
    widths: Widths
    rounds: tuple[Round, ...] = field(default=())


def save_progress(path: Path, module: nn.Module, progress: Progress) -> None:
    """Write tensors and progress; a kill in the middle leaves the old file or none."""
    metadata = {_KEY: msgspec.json.encode(progress, order="deterministic").decode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    # Clones: weights that layers share are refused otherwise.
    tensors = {name: t.detach().clone().contiguous() for name, t in module.state_dict().items()}
    safetensors.torch.save_file(tensors, part, metadata)
    part.replace(path)


def load_progress(path: Path, module: nn.Module, settings: dict[str, Any]) -> Progress | None:
    """Bring the dense module to where an interrupted run stood; None where there is no state.

    Raises:
        BadInput: the state is damaged, or of a run with other options or weights.
    """
    if not path.is_file():
        return None
    hint = f"delete {path} to start again"
    try:
        with safetensors.safe_open(path, "pt") as file:
            progress = msgspec.json.decode((file.metadata() or {})[_KEY], type=Progress)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, msgspec.DecodeError, KeyError, ValueError) as error:
        raise BadInput(f"{path} is not the state of a pruning run: {hint}") from error
    for name, value in msgspec.json.decode(msgspec.json.encode(settings)).items():
        if (old := progress.settings.get(name)) != value:
            raise BadInput(f"{path} is the state of a run with {name} {old}, not {value}: {hint}, or use its options")
    try:
        fit_channels(module, tensors)
        module.load_state_dict(tensors)
    except (ConversionError, RuntimeError) as error:
        raise BadInput(f"{path} holds the weights of another network: {hint}") from error
    return progress
