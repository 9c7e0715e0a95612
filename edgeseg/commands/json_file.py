"""JSON documents that commands write for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeseg.durable import write_file
from edgeseg.errors import BadInput


def write_json(path: Path, document: Any) -> None:
    """Write a document, whole or not at all. Raises BadInput where that cannot be."""
    try:
        write_file(path, msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
