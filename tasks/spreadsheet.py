"""CSV for people, who open it in a spreadsheet: what would run there as a formula is written as text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What begins a formula, also after a tab or a line break, and in wide letters."""


def defused(value: Any) -> Any:
    """The same cell; a text that a spreadsheet would take for a formula with an apostrophe before it."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(_STARTS) and not _is_number(value)
        else value
    )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write sampled rows; the columns are those of the first. An existing file is replaced at once."""
    columns = list(rows[0]) if rows else []
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(defused, columns))
        writer.writerows([defused(row.get(column)) for column in columns] for row in rows)
    aside.replace(path)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()
