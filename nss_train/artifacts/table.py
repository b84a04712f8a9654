"""Sampled rows for people: a table for a terminal, a CSV file that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nss_train.artifacts.files import write_aside
from nss_train.artifacts.records import Row
from nss_train.text.formulas import defused


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write rows as CSV; text that a spreadsheet would run gets a leading single quote, numbers do not."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)  # ends lines with CR LF (RFC 4180); otherwise a CR in a cell is not quoted
    writer.writerow([defused(name) for name in columns])
    writer.writerows([_csv_cell(row.get(name)) for name in columns] for row in rows)
    write_aside(path, lines.getvalue().encode())


def row_table(rows: Iterable[Row], columns: Sequence[str]) -> Table:
    """Return the rows as a rich table. Cells are never read as markup or as terminal control codes."""
    table = Table()
    for name in columns:
        table.add_column(Text(_printable(name)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(_text(row.get(name)))) for name in columns))
    return table


def _csv_cell(value: object) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return None if value is None else defused(_text(value))


def _text(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
