"""The JSON schema of a table, which generated records are held to."""

from __future__ import annotations

from typing import Any

import pandas as pd

_JSON_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "ndarray": "array",
    "dict": "object",
}


def make_schema(frame: pd.DataFrame) -> dict[str, Any]:
    """One property per column, in the frame's order; columns without nulls are required."""
    return {
        "type": "object",
        "properties": {str(column): _property(frame[column]) for column in frame.columns},
        "required": [str(column) for column in frame.columns if not frame[column].isna().any()],
    }


def _property(column: pd.Series[Any]) -> dict[str, Any]:
    values = _enum(column)
    if values is not None:
        return {"enum": values}
    # Sorted, because NSS's own order follows the process's string-hash seed.
    types = sorted({_JSON_TYPES.get(type(cell).__name__, "string") for cell in column.tolist()})
    if column.isna().any():
        types.append("null")
    if set(types) <= {"integer", "number"}:
        return {"type": types[0], "minimum": float(column.min()), "maximum": float(column.max())}
    if types == ["string"]:
        lengths = column.astype(str).str.len()
        return {
            "type": "string",
            "minLength": round(lengths.min() / 1.5),
            "maxLength": round(1.5 * lengths.max()),
        }
    return {"type": types}


def _enum(column: pd.Series[Any]) -> list[Any] | None:
    """Sorted values, nulls last, when they are few and mostly repeated; else ``None``.

    NSS's rule for n rows: at most √n distinct values, of which at most ∛n occur once.
    """
    try:
        counts = column.value_counts(dropna=False)
    except TypeError:  # lists and dicts cannot be counted
        return None
    rows = len(column)
    if len(counts) > rows**0.5 or (counts == 1).sum() > rows ** (1 / 3):
        return None
    return [_plain(value) for value in counts.sort_index(na_position="last").index.tolist()]


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value if isinstance(value, str | bool | int | float) else str(value)
