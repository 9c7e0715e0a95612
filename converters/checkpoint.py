"""edgeseg's checkpoint: one .safetensors with the weights and, in its metadata, all that is needed to use them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch

from edgeseg.converters.channels import fit_channels
from edgeseg.converters.models.build import Segmenter, architecture, build
from edgeseg.converters.weights import read_tensors, shortened
from edgeseg.errors import BadInput, ConversionError
from edgeseg.types import Preprocess

_KEY = "edgeseg"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The metadata of a checkpoint.

    Attributes:
        architecture: {"name", "options"} for `models.unet.build`.
        preprocess: what the network expects of a frame.
        classes: names, index 0 is the background.
        training: the training record: options, data hash, splits, scores, encoder weights, versions, machine.
        schema: version of this metadata.
        pruned: the tensors have fewer channels than the architecture.
    """

    architecture: dict[str, Any]
    preprocess: Preprocess
    classes: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)
    schema: int = 1
    pruned: bool = False


def save_checkpoint(
    path: Path, model: Segmenter, preprocess: Preprocess, classes: tuple[str, ...], training: Any
) -> None:
    """Write a checkpoint; a kill in the middle leaves the old file or none, never half of one."""
    info = CheckpointInfo(architecture(model), preprocess, classes, training, pruned=_is_pruned(model))
    metadata = {_KEY: msgspec.json.encode(info, order="deterministic").decode()}
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(safetensors.torch.save(state, metadata))  # save_file writes for the owner alone
    part.replace(path)


def load_checkpoint(path: Path | str) -> tuple[Segmenter, CheckpointInfo]:
    """Build the model of a checkpoint, in eval mode, and return it with its metadata.

    Raises:
        ConversionError: for a missing or corrupt file, one without edgeseg's metadata, or weights that do not fit.
    """
    file = Path(path)
    if not file.is_file():
        raise ConversionError(f"{file} does not exist, expected a checkpoint made by `edgeseg train`")
    info = read_info(file)
    try:
        model = build(info.architecture["name"], **info.architecture["options"])
        tensors = read_tensors(file)
        if info.pruned:
            fit_channels(model, tensors)
        model.load_state_dict(tensors)
    except (BadInput, ConversionError, RuntimeError, KeyError, TypeError) as error:
        raise ConversionError(f"{file}: its weights do not fit its architecture: {shortened(error)}") from error
    return model.eval(), info


def _is_pruned(model: Segmenter) -> bool:
    made = architecture(model)
    with torch.device("meta"):
        dense = build(made["name"], **made["options"]).state_dict()
    return any(tensor.shape != dense[name].shape for name, tensor in model.state_dict().items())


def read_info(path: Path) -> CheckpointInfo:
    """Only the metadata. Raises ConversionError where there is none or it is damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, ValueError) as error:
        raise ConversionError(f"{path} is not a valid .safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ConversionError(
            f"{path} has weights but no edgeseg metadata: give the factory that builds its model, "
            f"as in `package.module:factory --weights {path.name}`"
        )
    try:
        return msgspec.json.decode(metadata[_KEY], type=CheckpointInfo)
    except msgspec.DecodeError as error:
        raise ConversionError(f"{path} has damaged edgeseg metadata: {error}") from error


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, as hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
