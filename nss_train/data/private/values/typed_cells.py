"""The reading of a single cell as each type: a value that fits, or ``None``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial

from nss_train.config.sections.guarantee import ColumnType
from nss_train.data.private.values.cells import DECODER, MAX_DIGITS, Kind, compact, is_deeper
from nss_train.data.private.values.values import Digits, Value, Verbatim, written

Reader = Callable[[Kind, str], Value]

MAX_DEPTH = 8
"""Most levels of a nested value; a deeper one becomes null."""

_INTEGER = re.compile(r"([+-]?)0*+(\d*+)(?<=\d)(?:\.0*)?", re.ASCII)
"""Leading zeros are no digits: ``int`` refuses thousands of them."""
_INTEGER_DIGITS = 19
"""Number of digits of 2⁶³."""
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_BLANKS = " \t"
_TEXTUAL = (Kind.FIELD, Kind.STRING)
_DIGITS = (*_TEXTUAL, Kind.NUMBER, Kind.DECIMAL, Kind.FLOAT)


def reader_of(type_: ColumnType, form: str | None) -> Reader:
    """Return the reader of a type's cells; ``form`` is a datetime column's declared format."""
    return partial(_datetime, form=form) if type_ is ColumnType.DATETIME else _READERS[type_]


def _integer(kind: Kind, text: str) -> Value:
    match = _INTEGER.fullmatch(text.strip(_BLANKS)) if kind in _DIGITS else None
    if match is None or len(match[2]) > _INTEGER_DIGITS:
        return None
    number = int(match[1] + (match[2] or "0"))
    return number if -(2**63) <= number < 2**63 else None


def _number(kind: Kind, text: str) -> Value:
    if kind is Kind.DECIMAL:
        return Decimal(text)
    stripped = text.strip(_BLANKS)
    if kind not in _DIGITS or not _DECIMAL.fullmatch(stripped):
        return None
    number = float(stripped)
    return number if math.isfinite(number) else None


def _boolean(kind: Kind, text: str) -> Value:
    known = {"true": True, "false": False}
    return known.get(text.strip(_BLANKS).lower()) if kind in (*_TEXTUAL, Kind.BOOLEAN) else None


def _string(kind: Kind, text: str) -> Value:
    if kind is Kind.NESTED:
        return None
    return written(float(text)) if kind is Kind.FLOAT else text


def _datetime(kind: Kind, text: str, *, form: str | None) -> Value:
    if kind is Kind.MOMENT:
        return text
    if kind not in (*_TEXTUAL, Kind.NUMBER):
        return None
    return text if form is None or _parses(text, form) else None


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)  # noqa: DTZ007 (its text is kept, not its time)
    except ValueError:
        return False
    return True


def _json(kind: Kind, text: str) -> Value:
    if is_deeper(text, MAX_DEPTH):
        return None
    if kind is Kind.NESTED:
        return Verbatim(text)
    return _decoded(text) if kind in _TEXTUAL else None


def _decoded(text: str) -> Value:
    """Return a list or an object that is written as text; ``None`` for any other text."""
    try:
        found = DECODER.decode(text)
    except ValueError:
        return None
    return Verbatim(compact(found)) if isinstance(found, list | dict) else None


def _any(kind: Kind, text: str) -> Value:
    if kind is Kind.FIELD:
        return _own_type(text)
    if kind is Kind.FLOAT:
        return float(text)
    if kind is Kind.NESTED:
        return _json(kind, text)
    if kind in (Kind.NUMBER, Kind.DECIMAL):
        return Digits(text)
    return text == "true" if kind is Kind.BOOLEAN else text


def _own_type(text: str) -> Value:
    """Return a JSON number, true or false for a field that is one, and its text for any other."""
    stripped = text.strip(_BLANKS)
    if stripped in ("true", "false"):
        return stripped == "true"
    if not _JSON_NUMBER.fullmatch(stripped):
        return text
    is_sure = len(stripped) < MAX_DIGITS and "e" not in stripped and "E" not in stripped
    return Digits(stripped) if is_sure or math.isfinite(float(stripped)) else text


_READERS: Mapping[ColumnType, Reader] = {
    ColumnType.INTEGER: _integer,
    ColumnType.NUMBER: _number,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.STRING: _string,
    ColumnType.JSON: _json,
    ColumnType.ANY: _any,
}
