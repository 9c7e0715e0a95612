"""`index.csv` beside a folder of frames: a row for each file, with what is known of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from edgeseg.errors import BadInput

INDEX = "index.csv"


def read_index(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV file by their column `file`; none where there is no such file.

    Raises:
        BadInput: it cannot be read, is no CSV in UTF-8, or has no column `file`.
    """
    try:
        # With or without the byte order mark that a spreadsheet writes.
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        columns = reader.fieldnames or ()
        rows = {row["file"]: row for row in reader if row["file"]} if "file" in columns else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a CSV file in UTF-8: {error}") from error
    if "file" not in columns:
        raise BadInput(f"{path} has no column 'file' (columns: {', '.join(columns) or 'none'})")
    return rows


def figure_of(row: Mapping[str, str], column: str) -> float | None:
    """A figure of a row, None where it is not given. Raises BadInput unless it is a number above 0."""
    text = row.get(column)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise BadInput(f"{INDEX}: {column} of {row['file']} is {text!r}, expected a number above 0")
    return number
