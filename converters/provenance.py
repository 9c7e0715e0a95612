"""Who made what with which versions, and of which weights."""

from __future__ import annotations

import hashlib
from importlib import metadata

import torch
from torch import nn

from edgeseg import __version__


def tool_versions(*packages: str) -> dict[str, str]:
    """Versions of edgeseg and of these packages; a package that is not installed is left out."""
    versions = {"edgeseg": __version__}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def weights_sha256(module: nn.Module) -> str:
    """Hash over names, types, shapes and values of all parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        total.update(f"{name} {array.dtype} {tuple(array.shape)}\0".encode())
        total.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
