"""The JSON Schema of the manifest, from the dataclasses and what their docstrings say: docs/manifest.schema.json.

    python -m edgeseg.manifest_schema > docs/manifest.schema.json
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.manifest import SCHEMA
from edgeseg.types import Manifest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TITLE = "manifest.json of an edgeseg bundle"
_HEX_DIGEST = "^[0-9a-f]{64}$"
# "a, b: text", and lines of it that are indented further
_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.+(?:\n     +.+)*)", re.MULTILINE)


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of manifests of schemas 1 to `edgeseg.manifest.SCHEMA`."""
    content = msgspec.json.schema(Manifest, schema_hook=_schema_of)
    kinds: dict[str, Any] = content["$defs"]
    for kind in kinds.values():
        _describe(kind)
    fields = kinds["Manifest"]["properties"]
    fields["schema"] = {"type": "integer", "minimum": 1, "maximum": SCHEMA, "description": "version of this form"}
    fields["digest"]["pattern"] = f"{_HEX_DIGEST}|^$"
    kinds["Manifest"]["required"].append("schema")
    kinds["FileRecord"]["properties"]["sha256"]["pattern"] = _HEX_DIGEST
    kinds["FileRecord"]["properties"]["size_bytes"]["minimum"] = 0
    return {"$schema": _DIALECT, "title": _TITLE, **content}


def _schema_of(kind: type) -> dict[str, Any]:
    """How a type that JSON does not know stands in the schema."""
    if kind is Path:
        return {"type": "string", "description": "relative to the bundle's folder, with forward slashes"}
    raise NotImplementedError(f"{kind} has no place in a manifest")


def _describe(kind: dict[str, Any]) -> None:
    """Give each property what the docstring says of it, and the object the rest of the docstring."""
    text, _, attributes = inspect.cleandoc(kind.get("description", "")).partition("\nAttributes:\n")
    kind["description"] = _one_line(text)
    for names, what in _ATTRIBUTE.findall(attributes):
        for name in names.split(", "):
            if name in kind["properties"]:
                kind["properties"][name] |= {"description": _one_line(what)}


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(manifest_schema())).decode())
