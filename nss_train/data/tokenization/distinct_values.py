"""The distinct values of each column, on which most of the preparation works instead of the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import types

from nss_train.data.types import UNWRITABLE, as_arrow, unwritable
from nss_train.errors import DataError, Problem

BATCH_ROWS = 1000
"""Part of the format: NSS writes records in batches of this size, and each batch determines its types."""

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column as codes into its distinct values."""

    name: str
    label: str
    """Name as it is written in a record, quoted and escaped."""
    kind: pa.DataType
    codes: Codes
    """Index into ``values`` for each row; shape (rows,)."""
    values: list[Any]
    """Python values; ``None`` for nulls, at most once."""
    texts: list[str]
    """JSON of each value as NSS writes it."""
    exact: bool = False
    """Whether numbers are written with all their digits, and gaps do not change the type of other values."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of rows of each value; shape (values,)."""
        return np.bincount(self.codes, minlength=len(self.values))

    @property
    def is_number(self) -> bool:
        return bool(types.is_integer(self.kind) or types.is_floating(self.kind))

    @property
    def is_date(self) -> bool:
        """Return whether it is written as a number of milliseconds; a time of day is written as text."""
        return bool(types.is_temporal(self.kind) and not types.is_time(self.kind))

    @property
    def is_text(self) -> bool:
        return bool(types.is_string(self.kind) or types.is_large_string(self.kind))

    @property
    def is_nested(self) -> bool:
        return bool(types.is_nested(self.kind))

    @property
    def has_nulls(self) -> bool:
        return any(value is None for value in self.values)


def to_arrow(frame: pd.DataFrame, *, exact: bool = False) -> pa.Table:
    """Return the table after NSS's detour through a dataset: a nullable integer with gaps becomes a float.

    An ``exact`` table skips the detour.
    """
    once = as_arrow(frame)
    if exact or not any(_is_integer_with_gaps(column) for column in once.columns):
        return once
    return as_arrow(once.to_pandas())


def distinct_columns(table: pa.Table, *, exact: bool = False) -> list[Column]:
    """Return all columns of a table; :class:`DataError` lists those that cannot be written into a record."""
    make = distinct_exactly if exact else distinct
    found: list[Column] = []
    problems: list[Problem] = []
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):
        try:
            found.append(make(name, column))
        except UNWRITABLE as error:
            problems.append(unwritable(name, column.type, error))
    if problems:
        raise DataError("The table has columns that cannot be trained on.", problems)
    return found


def distinct_exactly(name: str, column: pa.ChunkedArray) -> Column:
    """Return a column with its numbers written so that reading gives the same values."""
    kind = column.type
    if types.is_nested(kind):
        return replace(_by_text(name, column, exact_texts), exact=True)
    if not types.is_floating(kind) and not types.is_integer(kind) and not types.is_boolean(kind):
        return replace(distinct(name, column), exact=True)
    codes, values = _floats(column) if types.is_floating(kind) else _by_dictionary(column)
    texts = [json.dumps(value) for value in values]
    label = name_text(name)
    return Column(name=name, label=label, kind=kind, codes=codes, values=values, texts=texts, exact=True)


def distinct(name: str, column: pa.ChunkedArray) -> Column:
    """Return a column as codes, distinct values and their texts."""
    kind = column.type
    if types.is_floating(kind):
        codes, values = _floats(column)
    elif types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind) or _whole(column):
        codes, values = _by_dictionary(column)
    else:
        return _by_text(name, column)
    return Column(
        name=name, label=name_text(name), kind=kind, codes=codes, values=values, texts=json_texts(values)
    )


def taken(column: Column, rows: npt.NDArray[np.int64]) -> Column:
    """Return some rows of a column, with only their values and their common type."""
    codes, used = pd.factorize(column.codes[rows])
    kind, values = _typed(column.kind, [column.values[code] for code in used])
    return replace(
        column,
        kind=kind,
        codes=codes.astype(np.int32),
        values=values,
        texts=[column.texts[code] for code in used],
    )


def _typed(kind: pa.DataType, values: list[Any]) -> tuple[pa.DataType, list[Any]]:
    """Return the type of a data frame: mixed numbers become floats, a list or an object makes all nested."""
    present = [value for value in values if value is not None]
    if any(isinstance(value, list | dict) for value in present):
        return pa.struct([]), values
    if not present or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return kind, values
    if all(isinstance(value, int) for value in present):
        return pa.int64(), values
    return pa.float64(), [None if value is None else float(value) for value in values]


def json_texts(values: list[Any]) -> list[str]:
    """Return each value as pandas writes it into a JSON Lines record."""
    lines = pd.DataFrame({"v": values}).to_json(orient="records", lines=True, force_ascii=False)
    # The line has `{"v":` before the value and `}` after it.
    return [line[5:-1] for line in lines.split("\n")[: len(values)]]


def exact_texts(values: list[Any]) -> list[str]:
    """Return the exact JSON of lists and objects: all digits of numbers, ISO 8601 times, decimals as text."""
    return [json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")) for value in values]


def _plain(value: object) -> Any:
    """Convert a value to JSON types at every depth; NaN becomes null."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    return plain_text(value)


def plain_text(value: object) -> str:
    """Return a time as ISO 8601, or a decimal with all its digits."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def name_text(name: str) -> str:
    """Return a column's name as it is written in a record, quoted and escaped."""
    line: str = pd.DataFrame({name: [0]}).to_json(orient="records", lines=True, force_ascii=False)
    return line.rstrip("\n")[1:-3]


def _floats(column: pa.ChunkedArray) -> tuple[Codes, list[Any]]:
    numbers = column.to_numpy().astype(np.float64)
    # Compared by their bits: 0.0 and -0.0 are equal but written differently.
    codes, bits = pd.factorize(numbers.view(np.int64))
    unique = np.asarray(bits).view(np.float64)
    missing = np.isnan(unique)
    return _joined_nulls(codes, unique.tolist(), missing)


def _by_dictionary(column: pa.ChunkedArray) -> tuple[Codes, list[Any]]:
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = encoded.dictionary.to_pylist()
    return encoded.indices.to_numpy().astype(np.int32), values


def _by_text(
    name: str, column: pa.ChunkedArray, write: Callable[[list[Any]], list[str]] = json_texts
) -> Column:
    """Write a column batch by batch, because its text depends on the batch (dates, decimals, lists, gaps)."""
    texts = [text for batch in _batches(column) for text in write(batch)]
    codes, unique = pd.factorize(np.asarray(texts, dtype=object))
    first = np.full(len(unique), -1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    values = column.take(pa.array(first)).to_pylist()
    return Column(
        name=name,
        label=name_text(name),
        kind=column.type,
        codes=codes.astype(np.int32),
        values=values,
        texts=list(unique),
    )


def _batches(column: pa.ChunkedArray) -> Iterator[list[Any]]:
    for start in range(0, len(column), BATCH_ROWS):
        yield column.slice(start, BATCH_ROWS).to_pylist()


def _joined_nulls(
    codes: npt.NDArray[np.int64], values: list[Any], missing: npt.NDArray[np.bool_]
) -> tuple[Codes, list[Any]]:
    """Merge NaNs of different bits into one null."""
    where = np.flatnonzero(missing)
    for index in where:
        values[index] = None
    if len(where) > 1:
        codes = np.where(np.isin(codes, where[1:]), where[0], codes)
    return codes.astype(np.int32), values


def _whole(column: pa.ChunkedArray) -> bool:
    return bool(types.is_integer(column.type) and column.null_count == 0)


def _is_integer_with_gaps(column: pa.ChunkedArray) -> bool:
    return bool(types.is_integer(column.type) and column.null_count > 0)
