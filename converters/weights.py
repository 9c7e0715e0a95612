"""Read tensors from files that may come from anywhere: nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgeseg.errors import ConversionError

# Compressed weights are rarely a tenth of themselves; deflate can make a thousandth of zeros.
_LARGEST_RATIO, _ALWAYS_ALLOWED = 20, 64 << 20


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .npz, .pth or .pt file by name.

    A .pth is read with torch's weights_only unpickler, which knows tensors and containers and calls nothing else. A
    state dict may lie one level deep under `state_dict` or `model`.

    Raises:
        ConversionError: for a missing, corrupt or unknown file, or a pickle with anything but tensors in it.
    """
    file = Path(path)
    if not file.is_file():
        raise ConversionError(f"{file} does not exist, expected a .safetensors, .npz or .pth file of weights")
    readers = {".safetensors": _safetensors, ".npz": _npz, ".pth": _pth, ".pt": _pth}
    if file.suffix not in readers:
        raise ConversionError(f"{file} has the unknown suffix {file.suffix!r}, expected {', '.join(readers)}")
    return readers[file.suffix](file)


def check_archive(path: Path, *, compressed: bool = False) -> None:
    """Raise ConversionError for a zip archive that would become far more in memory than it is; others pass.

    Args:
        path: what may be an archive.
        compressed: its members may be; torch never compresses what it saves.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    total, most = sum(m.file_size for m in members), path.stat().st_size
    if compressed:
        most = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * most)
    if total > most or (not compressed and any(m.compress_type != zipfile.ZIP_STORED for m in members)):
        raise ConversionError(
            f"{path} would inflate to {total} bytes, which weights do not: save it again with the program it is from"
        )


def shortened(error: Exception, length: int = 300) -> str:
    """The start of a message in one line: torch lists every key that does not fit."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else f"{text[:length]} ..."


def first_line(error: Exception) -> str:
    """The first line of a message, or the error's kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ConversionError(f"{path} is not a valid .safetensors file: {error}") from error
    return tensors


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        check_archive(path, compressed=True)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except ConversionError:
        raise
    except Exception as error:  # numpy has Python read the headers, and lets out what that raises
        raise ConversionError(f"{path} is not a valid .npz file of arrays: {error}") from error


def _pth(path: Path) -> dict[str, Tensor]:
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path} holds more than tensors and was refused unexecuted: save its state_dict() alone, "
            f"best as .safetensors"
        ) from error
    except (RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ConversionError(f"{path} is not a valid PyTorch file: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ConversionError(f"{path} is not a state dict, expected a mapping of names to tensors")
    return dict(content)
