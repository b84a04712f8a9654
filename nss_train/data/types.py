"""Columns that cannot be written into a record: each is reported with a remedy."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
from pyarrow import types

from nss_train.config.sections.reading import ColumnReading, column_setting
from nss_train.errors import DataError, Problem

_MESSAGE = "The table has columns that cannot be trained on."
_REFUSED = (
    (
        ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view"),
        "bytes; write them as text",
    ),
    (("is_map",), "maps; write each as an object with fixed names, as a list of pairs, or as text"),
    (("is_union",), "values of different types; write it as text"),
    (("is_interval",), "calendar intervals; write it as text, or as a number of days"),
)

UNWRITABLE = (OverflowError, RecursionError, TypeError, ValueError, pa.ArrowException)
"""Errors that pandas and Arrow raise for a value that they cannot convert."""


def as_arrow(frame: pd.DataFrame) -> pa.Table:
    """Return a frame as an Arrow table without index; :class:`DataError` lists columns of mixed types."""
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except UNWRITABLE as error:
        problems = list(_unlike(frame)) or [unwritable("columns", None, error)]
        raise DataError(_MESSAGE, problems) from error
    check_types(table.schema)
    return table


def _unlike(frame: pd.DataFrame) -> Iterator[Problem]:
    for number, name in enumerate(frame.columns):
        try:
            pa.array(frame.iloc[:, number], from_pandas=True)
        except UNWRITABLE as error:
            yield unwritable(str(name), None, error)


def unwritable(name: str, kind: pa.DataType | None, error: BaseException) -> Problem:
    """Return the problem of a column whose values cannot be converted."""
    if kind is not None and (types.is_temporal(kind) or isinstance(error, OverflowError)):
        remedy = (
            "it holds dates or times that nanoseconds do not reach (years 1677 to 2262); change them, or"
            " write them as text"
        )
    else:
        remedy = (
            f"its values have no common type ({error}); make them alike, write them as text, or read them so:"
            f" {column_setting(name, ColumnReading.TEXT)}"
        )
    return Problem(field=name, value="several types" if kind is None else str(kind), remedy=remedy)


def check_types(schema: pa.Schema) -> None:
    """Raise :class:`DataError` with every column that holds, at any depth, what JSON cannot."""
    problems = [
        Problem(
            field=field.name,
            value=str(field.type)[:100],
            remedy=f"the column holds {found}; or leave it out"
            f" ({column_setting(field.name, ColumnReading.DROP)})",
        )
        for field in schema
        if (found := next(_refused(field.type), None)) is not None
    ]
    if problems:
        raise DataError(_MESSAGE, problems)


def _refused(kind: pa.DataType) -> Iterator[str]:
    for names, said in _REFUSED:
        if any(getattr(types, name)(kind) for name in names):
            yield said
    if types.is_timestamp(kind) and kind.tz is not None and not _is_zone(kind.tz):
        yield f"times of a zone that does not exist ({kind.tz}); write them in UTC"
    if types.is_dictionary(kind):
        yield from _refused(kind.value_type)
    elif isinstance(kind, pa.BaseExtensionType):
        yield from _refused(kind.storage_type)
    elif types.is_nested(kind):
        for number in range(kind.num_fields):
            yield from _refused(kind.field(number).type)


def _is_zone(name: str) -> bool:
    try:
        pa.lib.string_to_tzinfo(name)
    except (LookupError, ValueError):
        return False
    return True
