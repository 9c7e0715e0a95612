"""Read a torch.export archive (.pt2) without running anything that could be hidden in it.

`torch.export.load` unpickles custom objects, falls back to a full unpickle where the safe one fails, and evaluates
symbolic size expressions. A trained segmenter needs none of that, so an archive that asks for it is refused before
torch sees it.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.errors import ConversionError, UnsupportedModel

_SYMBOL = r"Symbol\('[suzd]\d+'(?:, (?:positive|integer|nonnegative)=True)*\)"
_EXPRESSION = re.compile(rf"(?:{_SYMBOL}|(?:[suzd]\d+|Max|Min|Mod|FloorDiv)\b|[\d\s+*/(),-])*")


def load_exported_program(path: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """The module of a .pt2 and its input's (channels, height, width).

    Raises:
        ConversionError: for a corrupt archive, or one that holds anything but tensors and a graph.
        UnsupportedModel: for a model without exactly one 4-D image input.
    """
    _check_archive(path)
    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:
        raise ConversionError(f"{path} is not a readable torch.export archive: {_first_line(error)}") from error
    names = program.graph_signature.user_inputs
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    shape = tuple(nodes[0].meta["val"].shape) if len(nodes) == 1 else ()
    if len(shape) != 4 or not all(isinstance(s, int) for s in shape[1:]):
        raise UnsupportedModel(
            f"{path} has inputs {names} of shape {shape}, expected one image [N, C, H, W] of fixed size"
        )
    return module, (int(shape[1]), int(shape[2]), int(shape[3]))


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _check_member(path, info.filename, archive)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise ConversionError(f"{path} is not a torch.export archive: {_first_line(error)}") from error


def _check_member(path: Path, name: str, archive: zipfile.ZipFile) -> None:
    base = name.rsplit("/", 1)[-1]
    if name.endswith(".json"):
        for key, value in _pairs(json.loads(archive.read(name))):
            if key == "use_pickle" and value:
                _refuse(path, f"{name} asks to unpickle")
            if key == "expr_str" and not _EXPRESSION.fullmatch(str(value)):
                _refuse(path, f"{name} has the size expression {str(value)[:40]!r}")
    elif base.startswith(("custom_obj", "opaque_obj")) or name.endswith((".so", ".py", ".cpp", ".cubin")):
        _refuse(path, f"{name} is code or a pickled object")
    elif name.endswith((".pt", ".pth", ".pkl")) and (data := archive.read(name)):
        try:
            torch.load(io.BytesIO(data), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ConversionError(f"{path} was refused unexecuted: {name} holds more than tensors") from error


def _pairs(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _pairs(item)


def _refuse(path: Path, why: str) -> None:
    raise ConversionError(f"{path} was refused unexecuted: {why}; export a plain module of tensors")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
