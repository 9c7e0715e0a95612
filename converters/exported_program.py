"""Read a torch.export archive (.pt2) without running anything that could be hidden in it.

`torch.export.load` unpickles custom objects, falls back to a full unpickle where the safe one fails, evaluates symbolic
size expressions, imports the classes that an input's structure names, and calls any function under `torch.` that a
node names (`torch.os.system` is one). A trained segmenter needs none of that, so an archive that asks for it is refused
before torch sees it.
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

from edgeseg.converters.weights import check_archive, first_line
from edgeseg.errors import ConversionError, UnsupportedModel

_SYMBOL = r"Symbol\('[suzd]\d+'(?:, (?:positive|integer|nonnegative)=True)*\)"
_EXPRESSION = re.compile(rf"(?!.*\*\*)(?:{_SYMBOL}|(?:[suzd]\d+|Max|Min|Mod|FloorDiv)\b|[\d\s+*/(),-])*")
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file|load|save)\w+(?:\.\w+)?"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|getitem)"
    r"|math\.(?:ceil|floor|trunc)|torch\.(?:sym_\w+)"
)
_CODE = (".so", ".py", ".cpp", ".cubin")
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def load_exported_program(path: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """The module of a .pt2 and its input's (channels, height, width).

    Raises:
        ConversionError: for a corrupt archive, or one that holds anything but tensors and a graph.
        UnsupportedModel: for a model without exactly one 4-D image input.
    """
    archive = _checked_archive(path)
    try:
        program = torch.export.load(archive)
        module = program.module()
        # Raising stand-ins: a graph has one mode, and whoever asks for inference gets it.
        del module.train, module.eval
    except Exception as error:
        raise ConversionError(f"{path} is not a readable torch.export archive: {first_line(error)}") from error
    names = program.graph_signature.user_inputs
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    shape = tuple(nodes[0].meta["val"].shape) if len(nodes) == 1 else ()
    if len(shape) != 4 or not all(isinstance(s, int) for s in shape[1:]):
        raise UnsupportedModel(
            f"{path} has inputs {names} of shape {shape}, expected one image [N, C, H, W] of fixed size"
        )
    return module, (int(shape[1]), int(shape[2]), int(shape[3]))


def _checked_archive(path: Path) -> io.BytesIO:
    """A copy of the members that were checked: two readers of one archive need not agree on what is in it."""
    copy = io.BytesIO()
    seen: set[str] = set()
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as clean:
            for info in archive.infolist():
                data = archive.read(info)
                if info.filename.lower() in seen:  # torch finds members regardless of case
                    _refuse(path, f"{info.filename} is in it twice")
                seen.add(info.filename.lower())
                _check_member(path, info.filename, data)
                clean.writestr(info.filename, data)
    except (zipfile.BadZipFile, OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ConversionError(f"{path} is not a torch.export archive: {first_line(error)}") from error
    copy.seek(0)
    return copy


def _check_member(path: Path, name: str, data: bytes) -> None:
    lower = name.lower()
    if lower.endswith(".json"):
        for key, value in _pairs(json.loads(data)):
            if why := _suspicious(key, value):
                _refuse(path, f"{name} {why}")
    elif lower.rsplit("/", 1)[-1].startswith(("custom_obj", "opaque_obj")) or lower.endswith(_CODE):
        _refuse(path, f"{name} is code or a pickled object")
    elif lower.endswith((".pt", ".pth", ".pkl")) and data:
        try:
            torch.load(io.BytesIO(data), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ConversionError(f"{path} was refused unexecuted: {name} holds more than tensors") from error


def _suspicious(key: str, value: Any) -> str | None:
    if key == "use_pickle" and value:
        return "asks to unpickle"
    if key == "expr_str" and not _EXPRESSION.fullmatch(str(value)):
        return f"has the size expression {str(value)[:40]!r}"
    if key in ("target", "as_operator") and isinstance(value, str) and not _TARGET.fullmatch(value):
        return f"calls {value[:60]!r}, which is no operator of a network"
    if key in ("in_spec", "out_spec") and value and not _plain_structure(json.loads(value)[1]):
        return "has an input or output that is not a tensor, tuple, list or dict of them"
    return None


def _plain_structure(node: dict[str, Any]) -> bool:
    context = str(node.get("context"))
    plain = node["type"] in _CONTAINERS and "__enum__" not in context and "\\" not in context
    return plain and all(_plain_structure(child) for child in node.get("children_spec", ()))


def _pairs(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _pairs(item)


def _refuse(path: Path, why: str) -> None:
    raise ConversionError(f"{path} was refused unexecuted: {why}; export a plain module of tensors")
