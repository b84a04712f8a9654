"""XLSX files: the only sheet that holds cells, its first row the header."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook

from nss_train.contract import TableLimits
from nss_train.data.reading.faults import unreadable
from nss_train.data.reading.rows import check_names
from nss_train.data.sizes import BYTES_PER_CELL, Size, passed

_HEADER_ROWS = 1


def read_xlsx(path: Path) -> pd.DataFrame:
    """The frame in a workbook, as pandas reads it."""
    sheet = _sheet(path)
    header = sheet.to_python(skip_empty_area=False, nrows=_HEADER_ROWS)
    names = ["" if cell is None else str(cell) for cell in (header[0] if header else [])]
    if not names:
        raise unreadable(path.name, "no columns; a table needs a header and at least two rows")
    check_names(names)
    with pd.ExcelFile(path, engine="calamine") as book:
        return book.parse(sheet.name)


def xlsx_size(path: Path, limits: TableLimits) -> Size:
    """The bytes that the workbook's parts say they have, and if those are harmless the area of its sheet."""
    try:
        with zipfile.ZipFile(path) as archive:
            decoded = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise _no_xlsx(path, error) from error
    size = Size(file_bytes=path.stat().st_size, rows=0, columns=0, decoded_bytes=decoded)
    if passed(size, limits):
        return size
    sheet = _sheet(path)
    rows, columns = sheet.total_height, sheet.total_width
    return replace(size, rows=rows, columns=columns, decoded_bytes=decoded + rows * columns * BYTES_PER_CELL)


def _sheet(path: Path) -> CalamineSheet:
    try:
        with CalamineWorkbook.from_path(path) as book:
            sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
    except (CalamineError, OSError, zipfile.BadZipFile) as error:
        raise _no_xlsx(path, error) from error
    filled = [sheet for sheet in sheets if sheet.total_height]
    if len(filled) != 1:
        names = ", ".join(sheet.name for sheet in filled[:10]) or "none"
        raise unreadable(
            path.name, f"one sheet must hold cells, and {len(filled)} do ({names}); keep the table alone"
        )
    return filled[0]


def _no_xlsx(path: Path, error: Exception) -> Exception:
    return unreadable(path.name, f"not an XLSX workbook: {error}")
