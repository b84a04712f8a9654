"""Reading a table, as pandas reads it by default."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from nss_train.config.reading import ReadingParameters, Types
from nss_train.contract import TableLimits
from nss_train.data.faithful import read_faithfully, read_texts
from nss_train.data.limits import check_cells, check_size
from nss_train.errors import DataError, Problem

MIN_ROWS = 2
_SHOWN_LINES = 10
AS_NSS = ReadingParameters()
Reader = Callable[[Path], pd.DataFrame]


def read_table(
    path: Path, limits: TableLimits | None = None, reading: ReadingParameters = AS_NSS
) -> pd.DataFrame:
    """The table in a CSV, Parquet or JSON Lines file; :class:`DataError` with what is wrong with it.

    Without ``limits`` a table may be as large as it likes: it is its reader's own.
    """
    readers: dict[str, Reader] = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".jsonl": _read_json_lines,
        ".json": _read_json_lines,
    }
    if not path.is_file():
        raise _unreadable(str(path), "no such file")
    if path.stat().st_size == 0:
        raise _unreadable(path.name, "the file is empty; a table needs a header and at least two rows")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise _unreadable(path.name, f"unknown format; the name must end in one of {', '.join(readers)}")
    if limits is not None:
        check_size(path, limits)
    frame = _read(path, reader, reading)
    if limits is not None:
        check_cells(frame, limits)
    if len(frame) < MIN_ROWS:
        raise _unreadable(path.name, f"the table has {len(frame)} rows; at least {MIN_ROWS} are needed")
    return frame


def _read(path: Path, reader: Reader, reading: ReadingParameters) -> pd.DataFrame:
    """As NSS reads it, but for what ``reading`` wants as it is written."""
    if reading.types is Types.FAITHFUL:
        if reader is not _read_json_lines:
            reader(path)  # for its checks
        return read_faithfully(path, texts=reading.columns)
    frame = reader(path)
    return frame.assign(**read_texts(path, reading.columns)) if reading.columns else frame


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open("rb") as file:
        if b"\0" in file.read(65536):
            raise _unreadable(path.name, "binary content, not text; export the table as UTF-8 CSV")
    try:
        header = _header(path)
        frame = pd.read_csv(path)
    except UnicodeDecodeError as error:
        raise _unreadable(
            path.name, f"not UTF-8 text ({error.reason} at byte {error.start}); convert it"
        ) from error
    except pd.errors.EmptyDataError as error:
        raise _unreadable(path.name, "no columns; a table needs a header and at least two rows") from error
    except pd.errors.ParserError as error:
        raise DataError(
            "The table has ragged rows.", _ragged(path) or [_problem(path.name, str(error))]
        ) from error
    _check_unique(header)
    if len(header) != len(frame.columns):
        # Pandas would take the first field of every row as an index without a word.
        raise DataError("The table has ragged rows.", _ragged(path))
    return frame


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            return next(csv.reader(file), [])
        except csv.Error as error:
            raise _unreadable(path.name, f"the header is no CSV ({error}); a quote may be missing") from error


def _ragged(path: Path) -> list[Problem]:
    """The first rows with more fields than the header."""
    problems: list[Problem] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        expected = len(next(reader, []))
        for row in reader:
            if len(row) > expected and len(problems) < _SHOWN_LINES:
                remedy = f"{len(row)} fields where the header has {expected}; quote fields that hold commas"
                problems.append(
                    Problem(field=f"line {reader.line_num}", value=",".join(row)[:80], remedy=remedy)
                )
    return problems


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path.name, f"not a Parquet file: {error}") from error
    _check_unique([str(column) for column in frame.columns])
    return frame.reset_index(drop=True)


def _read_json_lines(path: Path) -> pd.DataFrame:
    try:
        return pd.read_json(path, lines=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise _unreadable(path.name, f"not JSON Lines, one object a line: {error}") from error


def _check_unique(columns: list[str]) -> None:
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        remedy = "these column names appear more than once; rename them"
        raise DataError("Duplicate column names.", [Problem(field="columns", value=repeated, remedy=remedy)])


def _problem(name: str, remedy: str) -> Problem:
    return Problem(field="table", value=name, remedy=remedy)


def _unreadable(name: str, remedy: str) -> DataError:
    return DataError("The table cannot be read.", [_problem(name, remedy)])
