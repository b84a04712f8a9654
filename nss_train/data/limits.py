"""The limits on a table's size, measured before it is decoded: a small file can hide a large table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nss_train.contract import TableLimits
from nss_train.data.reading.arrow_file import arrow_size
from nss_train.data.reading.spreadsheet import xlsx_size
from nss_train.data.sizes import BYTES_PER_CELL, Size, passed
from nss_train.errors import DataError, Problem
from nss_train.formats import Format, kind_of

_CHUNK_BYTES = 2**22
_HEADER_CHARS = 2**24
_BRACKETS = (b"[", b"{")


def check_bytes(path: Path, limits: TableLimits) -> None:
    """Raise :class:`DataError` if the file is larger than the operator allows."""
    if path.stat().st_size > limits.file_bytes:
        _refuse([_over("file_bytes", path.stat().st_size, limits)])


def check_size(path: Path, limits: TableLimits, *, delimiter: str = ",") -> None:
    """Raise :class:`DataError` with every limit that a table's file exceeds, before it is decoded."""
    check_bytes(path, limits)
    size = _measure(path, limits, delimiter)
    _refuse([_over(name, value, limits) for name, value in passed(size, limits).items()])


def _measure(path: Path, limits: TableLimits, delimiter: str) -> Size:
    kind = kind_of(path.name)
    match None if kind is None else kind.format:
        case Format.PARQUET:
            return _parquet(path, limits)
        case Format.CSV:
            return _csv(path, limits, delimiter)
        case Format.ARROW:
            return arrow_size(path)
        case Format.XLSX:
            return xlsx_size(path, limits)
        case _:
            return _json_lines(path, limits)


def check_cells(frame: pd.DataFrame, limits: TableLimits) -> None:
    """Raise :class:`DataError` for each column with a text that is too long."""
    longest = {str(name): _longest(frame[name]) for name in frame.columns if frame[name].dtype == object}
    _refuse([_too_long(name, chars, limits) for name, chars in longest.items() if chars > limits.cell_chars])


def _csv(path: Path, limits: TableLimits, delimiter: str) -> Size:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        columns = file.readline(_HEADER_CHARS).count(delimiter) + 1
    rows = _lines(path)
    if rows > limits.rows:
        rows = _records(path, limits)  # line breaks within quotes end no row
    size = path.stat().st_size
    return Size(
        file_bytes=size, rows=rows, columns=columns, decoded_bytes=size + rows * columns * BYTES_PER_CELL
    )


def _lines(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            count += max(chunk.count(b"\n"), chunk.count(b"\r"))
    return count


def _records(path: Path, limits: TableLimits) -> int:
    """Count the rows as a CSV reader does, up to the first one too many."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file, suppress(csv.Error):
        return sum(1 for _ in islice(csv.reader(file), limits.rows + 2)) - 1
    return limits.rows  # a text is too long for this reader: the limit of cells will refuse it


def _json_lines(path: Path, limits: TableLimits) -> Size:
    """Measure rows, names and nesting; a name that is new in one row adds a cell to every row."""
    rows, depth, names = 0, 0, set[str]()
    with path.open("rb") as file:
        for line in file:
            rows += 1
            depth = max(depth, _depth(line, limits))
            if depth > limits.depth or rows > limits.rows or len(names) > limits.columns:
                break
            names.update(_names(line))
    size = path.stat().st_size
    decoded = size + rows * len(names) * BYTES_PER_CELL
    return Size(file_bytes=size, rows=rows, columns=len(names), decoded_bytes=decoded, depth=depth)


def _depth(line: bytes, limits: TableLimits) -> int:
    """Return the nesting depth of a line, or 0 if its few brackets cannot exceed the limit."""
    if sum(map(line.count, _BRACKETS)) <= limits.depth:
        return 0
    deep = most = 0
    quoted = escaped = False
    for char in line:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = char == ord("\\"), char != ord('"')
        elif char == ord('"'):
            quoted = True
        elif char in b"[{":
            deep += 1
            most = max(most, deep)
        elif char in b"]}":
            deep -= 1
    return most


def _names(line: bytes) -> Iterator[str]:
    """Yield the names of an object; other lines are left to the reader's own message."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        yield from found


def _parquet(path: Path, limits: TableLimits) -> Size:
    try:
        return parquet_size(path, limits)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(
            "The table cannot be read.", [_problem("table", path.name, f"not a Parquet file: {error}")]
        ) from error


def parquet_size(path: Path, limits: TableLimits) -> Size:
    """Measure the row groups' metadata and, if that is within the limits, the dictionaries of texts."""
    with pq.ParquetFile(path) as file:
        size = _parquet_declared(path, file)
        return size if passed(size, limits) else _parquet_texts(path, size, limits)


def _parquet_declared(path: Path, file: Any) -> Size:
    meta = file.metadata
    chunks = [
        meta.row_group(group).column(column)
        for group in range(meta.num_row_groups)
        for column in range(meta.num_columns)
    ]
    # A dictionary stores many values in few bytes, so the number of values counts as well.
    decoded = sum(max(chunk.total_uncompressed_size, chunk.num_values * BYTES_PER_CELL) for chunk in chunks)
    return Size(
        file_bytes=path.stat().st_size, rows=meta.num_rows, columns=meta.num_columns, decoded_bytes=decoded
    )


def _parquet_texts(path: Path, size: Size, limits: TableLimits) -> Size:
    """Add the bytes of all texts as if each were written out; here they stay in their dictionaries."""
    with pq.ParquetFile(path) as file:
        leaves = [file.schema.column(number) for number in range(file.metadata.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    decoded, longest = size.decoded_bytes, 0
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for group, name in product(range(file.num_row_groups), texts):
            total, chars = _text_bytes(file.read_row_group(group, columns=[name]).column(0))
            decoded, longest = decoded + total, max(longest, chars)
            if decoded > limits.decoded_bytes:
                break
    return Size(
        file_bytes=size.file_bytes,
        rows=size.rows,
        columns=size.columns,
        decoded_bytes=decoded,
        cell_chars=longest,
    )


def _text_bytes(column: pa.ChunkedArray) -> tuple[int, int]:
    """Return the total bytes of a column's texts, and the bytes of the longest."""
    total = longest = 0
    for leaf in (leaf for chunk in column.chunks for leaf in _leaves(chunk)):
        each = _lengths(leaf)
        total += pc.sum(each).as_py() or 0
        longest = max(longest, pc.max(each).as_py() or 0)
    return total, longest


def _lengths(texts: pa.Array) -> pa.Array:
    """Return the bytes of each text; texts of a dictionary are measured once."""
    if pa.types.is_dictionary(texts.type):
        return pc.binary_length(texts.dictionary).take(texts.indices)
    return pc.binary_length(texts)


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the texts within lists and structures."""
    if pa.types.is_struct(array.type) or pa.types.is_nested(array.type):
        inner = array.flatten()
        for part in inner if isinstance(inner, list) else [inner]:
            yield from _leaves(part)
    else:
        yield array


def _longest(series: pd.Series[Any]) -> int:
    try:
        texts = pa.array(series, type=pa.large_string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        found = series.map(lambda value: len(value) if isinstance(value, str) else 0).max()
        return int(found) if found == found else 0  # noqa: PLR0124 (NaN of an empty column)
    return int(pc.max(pc.utf8_length(texts)).as_py() or 0)


def _too_long(name: str, chars: int, limits: TableLimits) -> Problem:
    return _problem(name, f"a text of {chars:,} characters", f"at most {limits.cell_chars:,}; shorten it")


def _over(name: str, value: int, limits: TableLimits) -> Problem:
    remedy = f"at most {getattr(limits, name):,}; make the table smaller, or ask the operator"
    return _problem(f"table.{name}", f"{value:,}", remedy)


def _problem(field: str, value: str, remedy: str) -> Problem:
    return Problem(field=field, value=value, remedy=remedy)


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise DataError("The table is refused.", problems)
