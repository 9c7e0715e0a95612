"""JSON documents that commands write for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.durable import write_file
from edgeseg.errors import BadInput


def check_json(path: Path) -> None:
    """Raise BadInput where there is no folder to write to: told before an hour's work, not behind it."""
    if not os.access(path.parent, os.W_OK | os.X_OK) or path.is_dir():
        raise BadInput(f"{path} cannot be written, expected a file in a folder that is there: choose another --json")


def write_json(path: Path, document: Any) -> None:
    """Write a document, whole or not at all. Raises BadInput where that cannot be."""
    try:
        write_file(path, msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
