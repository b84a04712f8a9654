"""The rule by which a column's cells are read: its type, and its declarations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nss_train.config.sections.guarantee import ColumnType, PublicColumn
from nss_train.data.private.values.cells import MISSING, Kind, cell, parted
from nss_train.data.private.values.typed_cells import Reader, reader_of
from nss_train.data.private.values.values import NULL, Digits, Value, number_of, written
from nss_train.formats import MARKERS

VOID = None
"""Value in place of a cell's JSON that voids its record."""
_MARKER_CELLS = frozenset(cell(Kind.FIELD, marker) for marker in MARKERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """The rule by which the cells of one column are read."""

    type: ColumnType
    read: Reader
    cell_chars: float
    """Most characters of a cell; a record with a longer one has no effect."""
    null: str | None
    """Text of a null; :data:`VOID` in a column that may have none."""
    bounds: Bounds | None
    categories: Categories | None

    @classmethod
    def of(cls, type_: ColumnType, declared: PublicColumn, *, cell_chars: int | None) -> Rule:
        """Return the rule of a column of this type."""
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
        """Return the cell's JSON in a record; :data:`VOID` if its record has no effect."""
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
        """Tell whether a CSV field is literally a declared category, whatever else it could be."""
        return self.categories is not None and cell in self.categories.fields

    def _value_of(self, kind: Kind, text: str) -> Value:
        """Return the value within the declarations; ``None`` for a value that does not fit."""
        if kind is Kind.FIELD and text in MARKERS:
            return None
        value = self.read(kind, text)
        if self.bounds is not None:
            value = self.bounds.within(value)
        return value if self.categories is None else self.categories.within(value)


def is_null(cell: bytes) -> bool:
    """Tell whether a cell stands for no value, whatever its type."""
    return cell == MISSING or cell in _MARKER_CELLS


@dataclass(frozen=True, slots=True)
class Bounds:
    """The declared bounds of numbers."""

    minimum: float | None
    maximum: float | None

    def within(self, value: Value) -> Value:
        """Return a number clamped to the bounds; anything else is unchanged."""
        number = number_of(value)
        if number is None:
            return value
        if self.minimum is not None and number < Decimal(repr(self.minimum)):
            return _like(value, self.minimum, math.ceil)
        if self.maximum is not None and number > Decimal(repr(self.maximum)):
            return _like(value, self.maximum, math.floor)
        return value


def _like(value: Value, bound: float, whole: Callable[[float], int]) -> Value:
    """Return a bound in the type of the value that exceeds it."""
    if isinstance(value, float):
        return float(bound)
    if isinstance(value, Decimal):
        return Decimal(repr(bound))
    if isinstance(value, Digits):
        return Digits(int(bound)) if float(bound).is_integer() else Digits(written(float(bound)))
    return whole(bound)


@dataclass(frozen=True, kw_only=True, slots=True)
class Categories:
    """The declared values of a column."""

    known: frozenset[tuple[str, Any]]
    fields: frozenset[bytes]
    """Their texts as cells of CSV, where a number or a marker may be meant as text."""
    other: Value

    @classmethod
    def of(cls, declared: PublicColumn) -> Categories:
        """Return the categories of a column that declares some."""
        named = declared.categories or ()
        return cls(
            known=frozenset(map(_identity, named)),
            fields=frozenset(cell(Kind.FIELD, value) for value in named if isinstance(value, str)),
            other=declared.other,
        )

    def within(self, value: Value) -> Value:
        """Return the value if it is a category or null, otherwise the declared replacement."""
        return value if value is None or self.has(value) else self.other

    def has(self, value: Value) -> bool:
        """Tell whether a value is one of the categories."""
        return _identity(value) in self.known


def _identity(value: Value) -> tuple[str, Any]:
    """Return a key that is equal for equal values: 1 equals 1.0, but not true."""
    if isinstance(value, bool):
        return "boolean", value
    number = number_of(value)
    return ("text", value) if number is None else ("number", number)
