"""The document inside the page: written so that no content can end the script element, read back strictly."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from edgeseg.errors import BadInput
from edgeseg.report.document import SCHEMA, Document

LARGEST_PAGE = 64 << 20
_EMBEDDED = re.compile(r'<script type="application/json" id="edgeseg-report">(.*?)</script>', re.DOTALL)


class _Schema(msgspec.Struct):
    schema: int


def embed(document: Document) -> str:
    """The document as JSON for a script element: without `<`, which alone could end it."""
    return msgspec.json.encode(document).decode().replace("<", "\\u003c")


def read_page(path: Path | str) -> tuple[str, Document]:
    """A page and the document in it.

    Raises:
        BadInput: it is no report of edgeseg, or was made by a newer one.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST_PAGE:
        raise BadInput(f"{path} is larger than {LARGEST_PAGE >> 20} MiB: not a page of edgeseg report")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a page of edgeseg report: it is no text") from error
    return text, _extract(text, path)


def _extract(text: str, path: Path) -> Document:
    found = _EMBEDDED.findall(text)
    if len(found) != 1:
        raise BadInput(f"{path} is not a page of edgeseg report: it has no document in it")
    try:
        schema = msgspec.json.decode(found[0], type=_Schema).schema
        if schema > SCHEMA:
            raise BadInput(f"{path} has schema {schema}, this edgeseg reads up to {SCHEMA}: upgrade edgeseg")
        return msgspec.json.decode(found[0], type=Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"{path} has a damaged document in it: {error}") from error
