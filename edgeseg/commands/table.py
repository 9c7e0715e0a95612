"""Tables for people: coloured on a terminal, plain aligned text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | int | float | None
_MISSING = "-"
_PADDING = 2  # of rich, after a cell
_EDGES = 4  # of rich, left and right of a table


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    styles: Sequence[str | None] | None = None,
    file: TextIO | None = None,
) -> None:
    """Print a table; columns that hold only numbers are right-aligned.

    On a terminal it is coloured, and where it is too wide it is continued below with the first column repeated. In a
    pipe it is plain text, one line a row, nothing cut off, columns two spaces apart.

    Args:
        title: above the table; empty for none.
        columns: headings.
        rows: as many cells as columns each; None prints as "-". Format floats yourself where digits matter.
        styles: a rich style such as "green" or "dim" for each row, used on a terminal only.
        file: where to; standard output by default.
    """
    stream = file or sys.stdout
    console = Console(file=stream)
    if console.is_terminal:
        for part in _parts(columns, rows, console.width):
            cells = [[row[index] for index in part] for row in rows]
            console.print(_rich_table(title, [columns[index] for index in part], cells, styles))
            title = ""
        return
    lines = [title] if title else []
    lines += _plain_lines(columns, rows)
    stream.write("\n".join(lines) + "\n")


def _parts(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> list[list[int]]:
    """Indices of the columns of each table: as many as fit beside the first one, but one at least."""
    widths = [
        _PADDING + max(len(heading), *(len(_text(row[index])) for row in rows)) if rows else 0
        for index, heading in enumerate(columns)
    ]
    parts = [[0]]
    for index in range(1, len(columns)):
        part = parts[-1]
        if len(part) > 1 and sum(widths[i] for i in part) + widths[index] > width - _EDGES:
            parts.append([0])
        parts[-1].append(index)
    return parts


def _rich_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], styles: Sequence[str | None] | None
) -> Table:
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.header_style = "bold"
    for index, heading in enumerate(columns):
        numeric = _is_numeric(rows, index)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row, style in zip(rows, styles or [None] * len(rows), strict=True):
        # As Text, so that a bracket in a message is not taken for markup.
        table.add_row(*(Text(_text(cell)) for cell in row), style=style)
    return table


def _plain_lines(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    cells = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    numeric = [_is_numeric(rows, index) for index in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]


def _is_numeric(rows: Sequence[Sequence[Cell]], index: int) -> bool:
    found = [row[index] for row in rows if row[index] not in (None, _MISSING)]
    return bool(found) and all(_reads_as_number(cell) for cell in found)


def _reads_as_number(cell: Cell) -> bool:
    try:
        float(str(cell).rstrip("%x"))
    except ValueError:
        return False
    return True


def _text(cell: Cell) -> str:
    return _MISSING if cell is None else " ".join(str(cell).split())
