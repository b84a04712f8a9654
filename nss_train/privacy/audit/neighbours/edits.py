"""The edits that make a table's neighbour: one unit added, removed or changed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple

from nss_train.privacy.audit.neighbours.tables import Record, TableFile


class Kind(StrEnum):
    """The kind of an edit."""

    NULL_OUT = "null out"
    """All records of a unit become null records: the step that the guarantee covers."""
    DELETE = "delete"
    """All records of a unit are removed with their places."""
    INSERT = "insert"
    """One record is added."""
    REPLACE = "replace"
    """One record becomes another: two steps, as it could have been nulled in between."""


class Odd(NamedTuple):
    """An odd record that replaces another or is added."""

    what: str
    """Its peculiarity, for people."""
    record: Record


class Moved(NamedTuple):
    """Numbers of units that an edit may remove from the examples and add to them."""

    lost: int
    gained: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """A neighbour of a table, and the changes that the guarantee allows."""

    kind: Kind
    what: str
    """The kind of the new record, for people."""
    place: int
    changed: TableFile
    moved: Moved
    records: int
    """Number of records of the changed units, before and after."""
    steps: int
    """Zero-out steps between the two tables: the most by which an input of a noisy release may differ."""

    @property
    def keeps_places(self) -> bool:
        return self.kind in {Kind.NULL_OUT, Kind.REPLACE}

    def __str__(self) -> str:
        return f"{self.kind} at {self.place}" + (f" by {self.what}" if self.what else "")


def null_out(table: TableFile, place: int, unit_column: str | None) -> Edit:
    """Return the edit that nulls all records of the unit at a place."""
    its = _places_of_unit(table, place, unit_column)
    records = [table.null if at in its else record for at, record in enumerate(table.records)]
    return _edit(Kind.NULL_OUT, table, place, records, Moved(1, 0), of=len(its))


def delete(table: TableFile, place: int, unit_column: str | None) -> Edit:
    """Return the edit that removes all records of the unit at a place."""
    its = _places_of_unit(table, place, unit_column)
    records = [record for at, record in enumerate(table.records) if at not in its]
    return _edit(Kind.DELETE, table, place, records, Moved(1, 0), of=len(its))


def insert(table: TableFile, place: int, odd: Odd, unit_column: str | None) -> Edit:
    """Return the edit that inserts a record before a place: a new unit, or a record of the unit it names."""
    records = [*table.records[:place], odd.record, *table.records[place:]]
    if unit_column is None:
        return _edit(Kind.INSERT, table, place, records, Moved(0, 1), what=odd.what)
    its = len(_places_of_unit(table.with_records(records), place, unit_column))
    return _edit(Kind.INSERT, table, place, records, Moved(1, 1), of=its, what=odd.what, steps=2)


def replace(table: TableFile, place: int, odd: Odd, unit_column: str | None) -> Edit:
    """Return the edit that replaces the record at a place; if it names another unit, both units change."""
    records = [*table.records[:place], odd.record, *table.records[place + 1 :]]
    changed = table.with_records(records)
    its = sum(len(_places_of_unit(one, place, unit_column)) for one in (table, changed))
    units = 1 if unit_column is None or _same_unit(table, changed, place, unit_column) else 2
    moved = Moved(units, units)
    return _edit(Kind.REPLACE, table, place, records, moved, of=its, what=odd.what, steps=2 * units)


def draw(table: TableFile, unit_column: str | None, secret: random.Random) -> Edit:
    """Return a random edit at a random place."""
    place, kind = secret.randrange(len(table.records)), secret.choice(list(Kind))
    if kind is Kind.NULL_OUT:
        return null_out(table, place, unit_column)
    if kind is Kind.DELETE and len(table.records) > 1:
        return delete(table, place, unit_column)
    column = secret.choice(table.columns)
    odd = Odd(*secret.choice(sorted(table.odd(place, column).items(), key=itemgetter(0))))
    return (replace if kind is Kind.REPLACE else insert)(table, place, odd, unit_column)


def _edit(
    kind: Kind,
    table: TableFile,
    place: int,
    records: Sequence[Record],
    moved: Moved,
    *,
    of: int = 1,
    what: str = "",
    steps: int = 1,
) -> Edit:
    changed = table.with_records(records)
    return Edit(kind=kind, what=what, place=place, changed=changed, moved=moved, records=of, steps=steps)


def _places_of_unit(table: TableFile, place: int, unit_column: str | None) -> set[int]:
    """Return the places that share this place's unit-column value; without a column, only this place."""
    if unit_column is None:
        return {place}
    value = table.cell(place, unit_column)
    return {at for at in range(len(table.records)) if table.cell(at, unit_column) == value}


def _same_unit(table: TableFile, changed: TableFile, place: int, unit_column: str) -> bool:
    return table.cell(place, unit_column) == changed.cell(place, unit_column)
