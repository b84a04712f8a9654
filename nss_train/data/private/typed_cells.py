"""What a cell becomes by its column's declarations: a function of the cell's own bytes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pandas.io.json import ujson_dumps  # type: ignore[attr-defined]

from nss_train.config.guarantee import ColumnType, PublicColumn
from nss_train.data.private.cells import DECODER, MISSING, Kind, compact, is_deeper, quoted

MAX_DEPTH = 8
"""Of a nested value; a deeper one becomes null."""

VOID = None
"""In place of a cell's JSON: its record counts for nothing."""

NULL = "null"

MARKERS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""What pandas takes for a missing value in a CSV file. Other formats have a null of their own."""

_INTEGER = re.compile(r"([+-]?\d+)(?:\.0*)?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_BLANKS = " \t"
_TEXTUAL = (Kind.FIELD, Kind.STRING)
_DIGITS = (*_TEXTUAL, Kind.NUMBER, Kind.DECIMAL, Kind.FLOAT)


@dataclass(frozen=True, slots=True)
class Verbatim:
    """JSON that stands in a record as it is."""

    text: str
    number: Decimal | None = None
    """What it is worth, of a number."""


Value = None | bool | int | float | str | Decimal | Verbatim


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How the cells of one column are read."""

    type: ColumnType
    declared: PublicColumn
    cell_chars: int | None = None
    """A record with a longer cell counts for nothing."""

    def json_of(self, cell: bytes) -> str | None:
        """The cell as it stands in a record; :data:`VOID` where its record counts for nothing."""
        if cell == MISSING:
            return self._written(None)
        try:
            kind, text = Kind(chr(cell[0])), cell[1:].decode("utf-8")
        except UnicodeDecodeError:
            return VOID
        if kind is Kind.FIELD and "\0" in text:
            return VOID
        if self.cell_chars is not None and len(text) > self.cell_chars:
            return VOID
        return self._written(self.value_of(kind, text))

    def value_of(self, kind: Kind, text: str) -> Value:
        """The value within what is declared; ``None`` for what does not fit."""
        if kind is Kind.FIELD:
            if text in (self.declared.categories or ()):
                return text if self.type in _WITH_TEXT else READERS[self.type](kind, text, self.declared)
            if text in MARKERS:
                return None
        value = READERS[self.type](kind, text, self.declared)
        return within_categories(within_bounds(value, self.declared), self.declared)

    def _written(self, value: Value) -> str | None:
        return VOID if value is None and not self.declared.nullable else written(value)


_WITH_TEXT = (ColumnType.ANY, ColumnType.STRING)


def written(value: Value) -> str:
    """A value as JSON, byte for byte as the reference writes it."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(ujson_dumps(value, double_precision=10))
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.text if isinstance(value, Verbatim) else str(value)


def within_bounds(value: Value, declared: PublicColumn) -> Value:
    """A number moved to the declared bound that it passes, in its own type; anything else as it is."""
    number = _number(value)
    if number is None:
        return value
    low, high = declared.minimum, declared.maximum
    if low is not None and number < Decimal(repr(low)):
        return _like(value, low, math.ceil)
    if high is not None and number > Decimal(repr(high)):
        return _like(value, high, math.floor)
    return value


def within_categories(value: Value, declared: PublicColumn) -> Value:
    """A value that is no declared category becomes what is declared for others, or null."""
    if declared.categories is None or value is None:
        return value
    known = {_identity(category) for category in declared.categories}
    return value if _identity(value) in known else declared.other


def _number(value: Value) -> Decimal | None:
    if isinstance(value, bool | str) or value is None:
        return None
    if isinstance(value, Verbatim):
        return value.number
    return value if isinstance(value, Decimal) else Decimal(repr(value))


def _like(value: Value, bound: float, whole: Callable[[float], int]) -> Value:
    """A bound in the type of the value that passes it."""
    if isinstance(value, float):
        return bound
    if isinstance(value, Decimal):
        return Decimal(repr(bound))
    if isinstance(value, int):
        return whole(bound)
    return int(bound) if bound.is_integer() else bound


def _identity(value: Value) -> tuple[str, object]:
    """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return "boolean", value
    number = _number(value)
    return ("number", number) if number is not None else ("text", value)


def _integer(kind: Kind, text: str, _: PublicColumn) -> Value:
    match = _INTEGER.fullmatch(text.strip(_BLANKS)) if kind in _DIGITS else None
    if match is None or len(match[1].lstrip("+-0")) > 19:
        return None
    number = int(match[1])
    return number if -(2**63) <= number < 2**63 else None


def _float(kind: Kind, text: str, _: PublicColumn) -> Value:
    if kind is Kind.DECIMAL:
        return Decimal(text)
    stripped = text.strip(_BLANKS)
    if kind not in _DIGITS or not _DECIMAL.fullmatch(stripped):
        return None
    number = float(stripped)
    return number if math.isfinite(number) else None


def _boolean(kind: Kind, text: str, _: PublicColumn) -> Value:
    known = {"true": True, "false": False}
    return known.get(text.strip(_BLANKS).lower()) if kind in (*_TEXTUAL, Kind.BOOLEAN) else None


def _string(kind: Kind, text: str, _: PublicColumn) -> Value:
    if kind is Kind.NESTED:
        return None
    return written(float(text)) if kind is Kind.FLOAT else text


def _datetime(kind: Kind, text: str, declared: PublicColumn) -> Value:
    if kind is Kind.MOMENT:
        return text
    if kind not in (*_TEXTUAL, Kind.NUMBER):
        return None
    return text if declared.format is None or _parses(text, declared.format) else None


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)  # noqa: DTZ007 (its text is kept, not its time)
    except ValueError:
        return False
    return True


def _nested(kind: Kind, text: str, _: PublicColumn) -> Value:
    if kind in _TEXTUAL:
        return _parsed(text)
    return Verbatim(text) if kind is Kind.NESTED and not is_deeper(text, MAX_DEPTH) else None


def _parsed(text: str) -> Value:
    """A list or an object that is written as text."""
    if is_deeper(text, MAX_DEPTH):
        return None
    try:
        found = DECODER.decode(text)
    except ValueError:
        return None
    return Verbatim(compact(found)) if isinstance(found, list | dict) else None


def _any(kind: Kind, text: str, declared: PublicColumn) -> Value:
    if kind is Kind.FLOAT:
        return float(text)
    if kind is Kind.NESTED:
        return _nested(kind, text, declared)
    if kind in (Kind.NUMBER, Kind.DECIMAL):
        return Verbatim(text, Decimal(text))
    if kind is Kind.FIELD:
        return _own_kind(text)
    return text == "true" if kind is Kind.BOOLEAN else text


def _own_kind(text: str) -> Value:
    """A field that is a JSON number, true or false stands as such, and any other one as text."""
    stripped = text.strip(_BLANKS)
    if stripped in ("true", "false"):
        return stripped == "true"
    if not _JSON_NUMBER.fullmatch(stripped) or not math.isfinite(float(stripped)):
        return text
    return Verbatim(stripped, Decimal(stripped))


READERS: Mapping[ColumnType, Callable[[Kind, str, PublicColumn], Value]] = {
    ColumnType.INTEGER: _integer,
    ColumnType.NUMBER: _float,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.STRING: _string,
    ColumnType.DATETIME: _datetime,
    ColumnType.JSON: _nested,
    ColumnType.ANY: _any,
}
