"""The rule that a column's cells are read by: its type, and what is declared of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nss_train.config.guarantee import ColumnType, PublicColumn
from nss_train.data.private.values.cells import MISSING, Kind, cell, parted
from nss_train.data.private.values.typed_cells import Reader, reader_of
from nss_train.data.private.values.values import NULL, Digits, Value, number_of, written

VOID = None
"""In place of a cell's JSON: its record counts for nothing."""

MARKERS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""What pandas takes for a missing value in a CSV file. Other formats have a null of their own."""

_MARKER_CELLS = frozenset(cell(Kind.FIELD, marker) for marker in MARKERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How the cells of one column are read."""

    type: ColumnType
    read: Reader
    cell_chars: float
    """A record with a longer cell counts for nothing."""
    null: str | None
    """What a null is written as; :data:`VOID` in a column that may have none."""
    bounds: Bounds | None
    categories: Categories | None

    @classmethod
    def of(cls, type_: ColumnType, declared: PublicColumn, *, cell_chars: int | None) -> Rule:
        """The rule of a column of this type."""
        bounded = declared.minimum is not None or declared.maximum is not None
        return cls(
            type=type_,
            read=reader_of(type_, declared.format),
            cell_chars=math.inf if cell_chars is None else cell_chars,
            null=NULL if declared.nullable else VOID,
            bounds=Bounds(declared.minimum, declared.maximum) if bounded else None,
            categories=None if declared.categories is None else Categories.of(declared),
        )

    def json_of(self, cell: bytes) -> str | None:
        """The cell as it stands in a record; :data:`VOID` where its record counts for nothing."""
        if cell == MISSING:
            return self.null
        try:
            kind, text = parted(cell)
        except UnicodeDecodeError:
            return VOID
        if len(text) > self.cell_chars or (kind is Kind.FIELD and "\0" in text):
            return VOID
        value = text if self.names(cell) else self._value_of(kind, text)
        return self.null if value is None else written(value)

    def names(self, cell: bytes) -> bool:
        """Whether a field of CSV is a declared category as it stands, whatever else it could be."""
        return self.categories is not None and cell in self.categories.fields

    def _value_of(self, kind: Kind, text: str) -> Value:
        """The value within what is declared; ``None`` for what does not fit."""
        if kind is Kind.FIELD and text in MARKERS:
            return None
        value = self.read(kind, text)
        if self.bounds is not None:
            value = self.bounds.within(value)
        return value if self.categories is None else self.categories.within(value)


def is_null(cell: bytes) -> bool:
    """Whether a cell stands for no value, whatever its type."""
    return cell == MISSING or cell in _MARKER_CELLS


@dataclass(frozen=True, slots=True)
class Bounds:
    """Declared bounds of numbers."""

    minimum: float | None
    maximum: float | None

    def within(self, value: Value) -> Value:
        """A number, moved to the bound that it passes; anything else as it is."""
        number = number_of(value)
        if number is None:
            return value
        if self.minimum is not None and number < Decimal(repr(self.minimum)):
            return _like(value, self.minimum, math.ceil)
        if self.maximum is not None and number > Decimal(repr(self.maximum)):
            return _like(value, self.maximum, math.floor)
        return value


def _like(value: Value, bound: float, whole: Callable[[float], int]) -> Value:
    """A bound in the type of the value that passes it."""
    if isinstance(value, float):
        return float(bound)
    if isinstance(value, Decimal):
        return Decimal(repr(bound))
    if isinstance(value, Digits):
        return Digits(int(bound)) if float(bound).is_integer() else Digits(written(float(bound)))
    return whole(bound)


@dataclass(frozen=True, kw_only=True, slots=True)
class Categories:
    """Declared values of a column."""

    known: frozenset[tuple[str, Any]]
    fields: frozenset[bytes]
    """Texts among them, as cells of CSV: there a number or a marker may be meant as text."""
    other: Value

    @classmethod
    def of(cls, declared: PublicColumn) -> Categories:
        """The categories of a column that declares some."""
        named = declared.categories or ()
        return cls(
            known=frozenset(map(_identity, named)),
            fields=frozenset(cell(Kind.FIELD, value) for value in named if isinstance(value, str)),
            other=declared.other,
        )

    def within(self, value: Value) -> Value:
        """A value that is none of these becomes what is declared for others; a null stays one."""
        return value if value is None or self.has(value) else self.other

    def has(self, value: Value) -> bool:
        """Whether a value is one of these."""
        return _identity(value) in self.known


def _identity(value: Value) -> tuple[str, Any]:
    """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return "boolean", value
    number = number_of(value)
    return ("text", value) if number is None else ("number", number)
