"""A data frame, one cell at a time: its dtypes were inferred from all rows, so they are not used.

One gap turns a column of whole numbers into floats. A cell must not reveal that, so whole numbers are the
same cell as integers and as floats; those that a float cannot hold exactly are read as no integer.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from nss_train.data.private.table import Raw
from nss_train.data.private.values.cells import MAX_DIGITS, MISSING, Kind, cell, compact
from nss_train.data.private.values.coding import Coder
from nss_train.data.private.values.values import written

EXACT = 2**53
"""Largest number up to which every whole number is a double."""
_DEPTH = 32


def frame_cells(column: pd.Series[Any]) -> Raw:
    """Return the cells of one column."""
    coder = Coder()
    coder.add([as_cell(value) for value in column.tolist()])
    return coder.raw()


def as_cell(value: object) -> bytes:
    """Return a Python value as the bytes of a cell; missing if it is for pandas, or no table value."""
    if isinstance(value, np.generic):
        value = (
            value.item() if not isinstance(value, np.datetime64 | np.timedelta64) else pd.Series([value])[0]
        )
    if isinstance(value, str):
        return cell(Kind.STRING, value)
    if isinstance(value, bool):
        return cell(Kind.BOOLEAN, compact(value))
    if isinstance(value, int | float):
        return _number_cell(value)
    if isinstance(value, Decimal):
        return cell(Kind.DECIMAL, format(value, "f")) if _is_writable(value) else MISSING
    if isinstance(value, list | tuple | dict | np.ndarray):
        return cell(Kind.NESTED, compact(_plain(value, _DEPTH)))
    moment = _moment(value)
    return MISSING if moment is None else cell(Kind.MOMENT, moment)


def _number_cell(value: float) -> bytes:
    try:
        number = float(value)
    except OverflowError:
        return MISSING
    if not math.isfinite(number):
        return MISSING
    if not number.is_integer():
        return cell(Kind.FLOAT, repr(number))
    if abs(number) <= EXACT:
        return cell(Kind.NUMBER, str(int(number)))
    return cell(Kind.FLOAT, f"{number:.17e}")  # with an exponent, so that it is not read as an integer


def _is_writable(value: Decimal) -> bool:
    return value.is_finite() and abs(value.adjusted()) <= MAX_DIGITS


def _moment(value: Any) -> str | None:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, datetime) and value.tzinfo is not None:
        return _in_utc(value)
    return value.isoformat() if isinstance(value, date | time) else None


def _in_utc(value: datetime) -> str | None:
    """Return a moment in ISO 8601; ``None`` if it lies beyond the calendar's end there."""
    try:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return None


def _plain(value: object, depth: int) -> Any:
    """Convert a value for :func:`~nss_train.data.private.values.cells.compact`."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict | list | tuple) and depth == 0:
        return None
    if isinstance(value, dict):
        return {str(name): _plain(inner, depth - 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth - 1) for inner in value]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _digits(value)
    return value if isinstance(value, bool | str) or value is None else _moment(value)


def _digits(value: float | Decimal) -> bytes | None:
    if isinstance(value, Decimal):
        return format(value, "f").encode() if _is_writable(value) else None
    if isinstance(value, float):
        return written(value).encode() if math.isfinite(value) else None
    return str(value).encode() if abs(value) < 10**MAX_DIGITS else None
