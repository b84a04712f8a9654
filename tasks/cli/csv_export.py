"""Rows for people and programs. A cell that a spreadsheet would run as a formula is text in a CSV file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from nss_train.text.formulas import defused


class RowFormat(StrEnum):
    """The format in which sampled rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write sampled rows; the columns are those of the first. An existing file is replaced at once."""
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8", newline="") as file:
        _write_csv(file, rows)
    aside.replace(path)


def print_rows(rows: Sequence[Mapping[str, Any]], form: RowFormat) -> None:
    """Print the rows for another program."""
    if form is RowFormat.CSV:
        _write_csv(sys.stdout, rows)
    else:
        sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)


def _write_csv(file: TextIO, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(rows[0]) if rows else []
    writer = csv.writer(file)
    writer.writerow(map(defused, columns))
    writer.writerows([defused(row.get(column)) for column in columns] for row in rows)
