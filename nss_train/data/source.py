"""The reading of a table: its file's format is detected and checked, then it is read as pandas reads it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nss_train.config.sections.reading import ReadingParameters, Types
from nss_train.contract import TableLimits
from nss_train.data.columns import check_known
from nss_train.data.comparison.changes import Change, check_changes
from nss_train.data.limits import check_bytes, check_cells, check_size
from nss_train.data.reading.arrow_file import read_arrow
from nss_train.data.reading.cells import TableFile
from nss_train.data.reading.doubts import (
    below_an_empty_line,
    blank_lines,
    check_header_once,
    doubts,
    unnamed_index,
)
from nss_train.data.reading.faithful import read_faithfully, read_texts
from nss_train.data.reading.faults import DAMAGED, contradicted, problem, unreadable
from nss_train.data.reading.json_array import as_lines
from nss_train.data.reading.json_lines import read_lines
from nss_train.data.reading.packed import unpacked
from nss_train.data.reading.spreadsheet import error_cells, read_xlsx
from nss_train.data.reading.text.delimiter import find_marks
from nss_train.data.reading.text.dialect import Dialect
from nss_train.data.reading.text.encoding import find_encoding
from nss_train.data.reading.text.numbers import find_numbers
from nss_train.data.reading.text.other_kinds import check_kind
from nss_train.data.reading.text.rows import (
    check_header,
    check_names,
    check_rows,
    check_unique,
    kept_places,
    own_name,
)
from nss_train.data.types import check_types
from nss_train.errors import DataError
from nss_train.formats import UNKNOWN, Compression, Format, kind_of, missing
from nss_train.text.counted import counted

MIN_ROWS = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A table that was read, and how it was read."""

    frame: pd.DataFrame
    how: str
    """Description of the file for people, such as ``comma, UTF-8``."""
    dialect: Dialect | None = None
    """Dialect of a text table, with which its cells are read again."""
    changes: tuple[Change, ...] = ()
    """Changes to its cells."""
    doubts: tuple[str, ...] = ()
    """Warnings about rows and columns that may not be what they look like."""

    @property
    def read_as(self) -> str:
        """Return the description with the table's measures, in one line."""
        rows, columns = self.frame.shape
        return f"{self.how}, {counted(columns, 'column')}, {counted(rows, 'row')}"


def read_table(
    path: Path, limits: TableLimits | None = None, reading: ReadingParameters | None = None
) -> pd.DataFrame:
    """Return the table of a file in a known format; raise :class:`DataError` with what is wrong with it.

    Without ``limits`` the size is not limited: the table belongs to the user who reads it.
    """
    return read_source(path, limits, reading).frame


def read_source(
    path: Path, limits: TableLimits | None = None, reading: ReadingParameters | None = None
) -> Source:
    """Return the table, and how its file was read; raise the errors of :func:`read_table`."""
    kind = kind_of(path.name)
    if not path.is_file():
        raise unreadable(str(path), missing(path))
    if path.stat().st_size == 0:
        raise unreadable(path.name, "the file is empty; a table needs a header and at least two rows")
    if kind is None:
        raise unreadable(path.name, UNKNOWN)
    if limits is not None:
        check_bytes(path, limits)
    with unpacked(path, limits) as plain:
        source = _read(plain, limits, reading or ReadingParameters())
    if source.frame.columns.empty:
        raise unreadable(path.name, "the table has no columns, or all of them are dropped (reading.columns)")
    if limits is not None:
        check_cells(source.frame, limits)
    if len(source.frame) < MIN_ROWS:
        rows = counted(len(source.frame), "row")
        raise unreadable(path.name, f"the table has {rows}; at least {MIN_ROWS} are needed")
    check_header_once(source.frame)
    source = _packed(source, kind.compression)
    source = replace(source, doubts=(*source.doubts, *doubts(source.frame)))
    logger.info("read as: %s", source.read_as, extra={"action": "data.read"})
    return source


def _packed(source: Source, compression: Compression | None) -> Source:
    """Return the source with the compression of its file."""
    if compression is None:
        return source
    dialect = None if source.dialect is None else replace(source.dialect, compression=compression)
    return replace(source, how=f"{source.how}, {compression.removeprefix('.')}", dialect=dialect)


def _read(path: Path, limits: TableLimits | None, reading: ReadingParameters) -> Source:
    kind = kind_of(path.name)
    form = None if kind is None else kind.format
    if form is Format.CSV:
        return _read_csv(path, limits, reading)
    _check_undeclared(reading, form)
    if form is Format.JSON:
        return _read_json(path, limits, reading)
    if limits is not None:
        check_size(path, limits)
    readers = {Format.PARQUET: _read_parquet, Format.ARROW: read_arrow, Format.XLSX: read_xlsx}
    if form not in readers:
        raise unreadable(path.name, UNKNOWN)
    frame = readers[form](path, dropped=reading.dropped)
    left_out = unnamed_index(frame)
    frame = _without_index(frame)
    check_names([str(column) for column in frame.columns], dropped=reading.dropped)
    file = TableFile(path=path, form=form, dropped=reading.dropped)
    source = _as_wanted(
        file, frame.drop(columns=list(reading.dropped), errors="ignore"), reading, how=str(form)
    )
    told = error_cells(path, dropped=reading.dropped) if form is Format.XLSX else left_out
    return replace(source, doubts=tuple(told))


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with numbered rows. A named index is a column of the file."""
    named = [name for name in frame.index.names if name is not None]
    if set(named) & set(frame.columns):
        check_unique([*map(str, named), *map(str, frame.columns)])
    return frame.reset_index(level=named).reset_index(drop=True) if named else frame.reset_index(drop=True)


def _check_undeclared(reading: ReadingParameters, form: Format | None) -> None:
    """Raise an error for declared marks: only text tables have them."""
    for name, value in reading.marks().items():
        raise contradicted(f"reading.{name}", value, f"the file is {form}, which has none; leave it out")


def _read_csv(path: Path, limits: TableLimits | None, reading: ReadingParameters) -> Source:
    encoded = Dialect(encoding=find_encoding(path, reading.encoding))
    check_kind(path, encoded)
    dialect = find_marks(path, encoded, reading)
    if limits is not None:
        check_size(path, limits, delimiter=dialect.delimiter)
    header = check_header(path, dialect, dropped=reading.dropped)
    check_known(reading.dropped, list(map(own_name, header)))
    check_rows(path, dialect, len(header))
    dialect, numbers = find_numbers(path, dialect, reading)
    whole = _frame(path, dialect, texts=numbers.columns)
    places = kept_places(header, reading.dropped)
    frame = numbers.apply(whole.iloc[:, places])
    names = [str(name) for name in frame.columns]
    if names != [header[place] for place in places] or not isinstance(frame.index, pd.RangeIndex):
        remedy = "the header is not what pandas reads; write the file again, each name in quotes"
        raise unreadable(path.name, remedy)
    dropped = frozenset(map(str, whole.columns)) - frozenset(names)
    file = TableFile(path=path, form=Format.CSV, dialect=dialect, dropped=dropped)
    source = _as_wanted(file, frame, reading, how=str(dialect), otherwise=numbers.columns)
    told = tuple(below_an_empty_line(path, dialect))
    if len(header) == 1:
        told = told or blank_lines(path, dialect)
    return replace(source, dialect=dialect, doubts=told)


def _as_wanted(
    file: TableFile,
    frame: pd.DataFrame,
    reading: ReadingParameters,
    *,
    how: str,
    otherwise: Collection[str] = (),
) -> Source:
    """Return what NSS reads, with some columns as they are written, and the changes to the cells.

    Columns that are read ``otherwise`` have other marks than a point, so their text changes in any case.
    """
    if reading.types is Types.FAITHFUL:
        return Source(frame=read_faithfully(file, texts=reading.texts), how=how)
    frame = frame.assign(**read_texts(file, reading.texts)) if reading.texts else frame
    compared = frame.drop(columns=[*otherwise, *reading.texts])
    return Source(frame=frame, how=how, changes=check_changes(file, compared, reading))


def _frame(path: Path, dialect: Dialect, *, texts: tuple[str, ...]) -> pd.DataFrame:
    """Return what pandas reads from a text table, with some columns left as texts."""
    try:
        return pd.read_csv(
            path,
            sep=dialect.delimiter,
            quotechar=dialect.quote,
            encoding=dialect.encoding,
            dtype=dict.fromkeys(texts, "str"),
        )
    except pd.errors.EmptyDataError as error:
        raise unreadable(path.name, "no columns; a table needs a header and at least two rows") from error
    except (pd.errors.ParserError, UnicodeError) as error:
        raise DataError(
            "The table has ragged rows.", [problem(path.name, f"{error}; a quote may be missing")]
        ) from error


def _read_parquet(path: Path, *, dropped: Collection[str] = ()) -> pd.DataFrame:
    try:
        schema = pq.read_schema(path)
    except DAMAGED as error:
        raise unreadable(path.name, f"not a Parquet file: {error}") from error
    check_known(dropped, schema.names)
    check_unique([name for name in schema.names if name not in dropped])
    kept = [field for field in schema if field.name not in dropped]
    check_types(pa.schema(kept))
    try:
        return pd.read_parquet(path, columns=[field.name for field in kept] if dropped else None)
    except DAMAGED as error:
        raise unreadable(path.name, f"not a Parquet file: {error}") from error


def _read_json(path: Path, limits: TableLimits | None, reading: ReadingParameters) -> Source:
    with as_lines(path) as (lines, is_array):
        if limits is not None:
            check_size(lines, limits)
        file = TableFile(path=lines, form=Format.JSON, dropped=reading.dropped)
        how = "JSON array" if is_array else "JSON Lines"
        if reading.types is Types.FAITHFUL:  # numbers may be larger than pandas accepts
            return Source(frame=read_faithfully(file, texts=reading.texts), how=how)
        frame = read_lines(lines, path.name)
        check_known(reading.dropped, list(map(str, frame.columns)))
        check_names(list(map(str, frame.columns)), dropped=reading.dropped)
        if len(frame) == 1:
            raise unreadable(
                path.name, "it is a single object; a table is one object a line, or one array of them"
            )
        return _as_wanted(file, frame.drop(columns=list(reading.dropped)), reading, how=how)
