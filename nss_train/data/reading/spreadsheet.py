"""XLSX files: the only sheet that holds cells, with the header in its first row."""

from __future__ import annotations

import functools
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook

from nss_train.contract import TableLimits
from nss_train.data.columns import check_known
from nss_train.data.reading.faults import DAMAGED, unreadable
from nss_train.data.reading.text.rows import check_names, kept_places, own_name
from nss_train.data.sizes import BYTES_PER_CELL, Size, passed
from nss_train.errors import DataError, Problem
from nss_train.text.counted import counted

_HEADER_ROWS = 1
_CHUNK_BYTES = 2**20
_SHEET_PART = re.compile(r"xl/worksheets/[^/]+\.xml")
_ERROR_CELL = re.compile(rb'<c(?= [^<>]{0,256}\bt="e")[^<>]{0,256} r="([A-Z]+)([0-9]+)"')
"""A cell of the type of errors (Ecma Office Open XML, part 1, 18.18.11); calamine reads it as empty."""
_WHOLE = 2**53
"""Largest whole number up to which every one has its own double."""


def read_xlsx(path: Path, *, dropped: Collection[str] = ()) -> pd.DataFrame:
    """Return the frame of a workbook, as pandas reads it, without the dropped columns."""
    sheet = _sheet(path)
    names = _header(path, sheet)
    if not names:
        raise unreadable(path.name, "no columns; a table needs a header and at least two rows")
    check_known(dropped, list(map(own_name, names)))
    _check_merged(sheet)
    check_names(names, dropped=dropped)
    try:
        with pd.ExcelFile(path, engine="calamine") as book:
            frame = book.parse(sheet.name)
    except (CalamineError, *DAMAGED) as error:
        raise _no_xlsx(path, error) from error
    return frame.iloc[:, kept_places(names, dropped)].rename(columns=str)


def sheet_cells(path: Path, *, dropped: Collection[str] = ()) -> dict[str, list[Any]]:
    """Return the cells below the header as the workbook has them, by column; empty cells are ``None``.

    A workbook has no integers: whole numbers become integers here.
    """
    try:
        header, *rows = _sheet(path).to_python(skip_empty_area=False)
    except (CalamineError, *DAMAGED) as error:
        raise _no_xlsx(path, error) from error
    names = list(map(str, header))
    columns = zip(*rows, strict=True) if rows else [() for _ in names]
    cells = dict(zip(names, ([_value(cell) for cell in column] for column in columns), strict=True))
    return {names[place]: cells[names[place]] for place in kept_places(names, dropped)}


def _check_merged(sheet: CalamineSheet) -> None:
    """Raise :class:`DataError` with all merged cells: only the first of each has a value in the file."""
    problems = [
        Problem(
            field="cells",
            value=":".join(f"{_letters(column)}{row + 1}" for row, column in corners),
            remedy="merged; unmerge them, and fill each row and name each column",
        )
        for corners in sheet.merged_cell_ranges or []
    ]
    if problems:
        raise DataError("The sheet has merged cells.", problems)


def error_cells(path: Path, *, dropped: Collection[str] = ()) -> Iterator[str]:
    """Yield a warning for each column with cells that hold an error of the workbook, such as ``#N/A``."""
    header, found = list(map(own_name, _header(path, _sheet(path)))), Counter[int]()
    for letters in _error_columns(path):
        found[_number(letters)] += 1
    for column, count in sorted(found.items()):
        if column < len(header) and header[column] not in dropped:
            yield (
                f"{header[column]}: {counted(count, 'cell')} with an error of the workbook (#N/A, #REF!, …)"
                " read as missing (null). Correct the formulas if values are wanted"
            )


def _error_columns(path: Path) -> Iterator[str]:
    """Yield the letters of the column of each cell below the header whose type is an error's."""
    with zipfile.ZipFile(path) as archive:
        for part in filter(_SHEET_PART.fullmatch, archive.namelist()):
            with archive.open(part) as file:
                kept = b""
                while chunk := file.read(_CHUNK_BYTES):
                    text = kept + chunk
                    end = text.rfind(b"<")
                    for place in _ERROR_CELL.finditer(text, 0, end):
                        if place[2] != b"1":
                            yield place[1].decode()
                    kept = text[end:]


def _letters(column: int) -> str:
    """Return the letters of a column that is counted from 0, such as AB."""
    letters = ""
    while column >= 0:
        letters, column = chr(ord("A") + column % 26) + letters, column // 26 - 1
    return letters


def _number(letters: str) -> int:
    """Return the number of a column, from 0, whose letters are given."""
    return functools.reduce(lambda total, one: total * 26 + ord(one) - ord("A") + 1, letters, 0) - 1


def _value(cell: object) -> Any:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) <= _WHOLE:
        return int(cell)
    return None if cell == "" else cell


def _header(path: Path, sheet: CalamineSheet) -> list[str]:
    """Return the cells of the first row over the whole width, including columns without a name."""
    try:
        rows = sheet.to_python(skip_empty_area=False, nrows=_HEADER_ROWS)
    except (CalamineError, *DAMAGED) as error:
        raise _no_xlsx(path, error) from error
    return ["" if cell is None else str(cell) for cell in (rows[0] if rows else [])]


def xlsx_size(path: Path, limits: TableLimits) -> Size:
    """Measure the declared bytes of the workbook's parts and, if within the limits, the area of its sheet."""
    try:
        with zipfile.ZipFile(path) as archive:
            decoded = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise _no_xlsx(path, error) from error
    size = Size(file_bytes=path.stat().st_size, rows=0, columns=0, decoded_bytes=decoded)
    if passed(size, limits):
        return size
    sheet = _sheet(path)
    rows, columns = (0, 0) if sheet.end is None else (last + 1 for last in sheet.end)
    return replace(size, rows=rows, columns=columns, decoded_bytes=decoded + rows * columns * BYTES_PER_CELL)


def _sheet(path: Path) -> CalamineSheet:
    try:
        with CalamineWorkbook.from_path(path) as book:
            sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
    except (CalamineError, OSError, zipfile.BadZipFile) as error:
        raise _no_xlsx(path, error) from error
    filled = [sheet for sheet in sheets if sheet.height]
    if len(filled) != 1:
        names = ", ".join(sheet.name for sheet in filled[:10]) or "none"
        raise unreadable(
            path.name, f"one sheet must hold cells, and {len(filled)} do ({names}); keep the table alone"
        )
    return filled[0]


def _no_xlsx(path: Path, error: Exception) -> Exception:
    return unreadable(path.name, f"not an XLSX workbook: {error}")
