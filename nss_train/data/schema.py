"""The JSON schema of a table, which constrains generated records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from nss_train.data.tokenization.distinct_values import Column

_JSON_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}


def make_schema(columns: Sequence[Column]) -> dict[str, Any]:
    """Return a schema with one property per column, in order; columns without nulls are required."""
    return {
        "type": "object",
        "properties": {column.name: _property(column) for column in columns},
        "required": [column.name for column in columns if not column.has_nulls],
    }


def _property(column: Column) -> dict[str, Any]:
    values = _enum(column)
    if values is not None:
        return {"enum": values}
    # Sorted, because NSS's own order depends on the process's string-hash seed.
    types = sorted({_JSON_TYPES.get(type(value).__name__, "string") for value in _cells(column)})
    if column.has_nulls:
        types.append("null")
    if set(types) <= {"integer", "number"}:
        return {"type": types[0], "minimum": float(min(column.values)), "maximum": float(max(column.values))}
    if types == ["string"]:
        lengths = _text_lengths(column)
        return {
            "type": "string",
            "minLength": round(min(lengths) / 1.5),
            "maxLength": round(1.5 * max(lengths)),
        }
    return {"type": types}


def _cells(column: Column) -> list[Any]:
    """Return values as a data frame holds them: a gap is a float among numbers, an object elsewhere."""
    if column.exact:
        return [value for value in column.values if value is not None]
    if column.is_number:
        return [0.0] if column.has_nulls else column.values
    return column.values


def _text_lengths(column: Column) -> list[int]:
    if column.is_text:
        return [len(value) for value in column.values]
    # Dates without a time are written without one, but only if all of them lack it.
    return [len(text) for text in pd.Series(column.values).astype(str)]


def _enum(column: Column) -> list[Any] | None:
    """Return sorted values, nulls last, if they are few and mostly repeated; otherwise ``None``.

    NSS's rule for n rows: at most √n distinct values, of which at most ∛n occur once.
    """
    if column.is_nested:
        return None
    rows = len(column.codes)
    counts = dict[Any, int]()
    if len(column.values) > 2 * rows**0.5 + 2:
        return None
    for value, count in zip(column.values, column.counts.tolist(), strict=True):
        counts[value] = counts.get(value, 0) + count  # 0.0 and -0.0 count as one value here
    if len(counts) > rows**0.5 or sum(count == 1 for count in counts.values()) > rows ** (1 / 3):
        return None
    found = sorted((value for value in counts if value is not None), key=_in_order)
    return [*map(_plain, found), *([None] if None in counts else [])]


def _in_order(value: object) -> tuple[bool, Any]:
    """Return a sort key for the values of a column, which may mix numbers and texts."""
    return isinstance(value, str), value


def _plain(value: object) -> Any:
    return value if isinstance(value, str | bool | int | float) else str(value)
