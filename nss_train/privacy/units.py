"""The units of privacy of a table: the unit of each record, and the records of each unit to train on.

The choice among a unit's records depends on these records and on public limits, never on other units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.guarantee import ColumnType, PublicColumn
from nss_train.data.assembly.groups import Groups
from nss_train.data.assembly.layout import Order
from nss_train.data.auto_values import unit_column
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.data.ragged import gather, offsets_of
from nss_train.data.tokenization.distinct_values import Column
from nss_train.privacy.coins import Coin, identities

Numbers = npt.NDArray[np.int64]

SCHEMA = pa.schema([("unit", pa.int32())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """The units that the training examples belong to."""

    of_example: Numbers
    """Unit number of each example, from 0, never decreasing; shape (examples,)."""
    firsts: Order
    """The first record of each unit; shape (units,)."""

    def __len__(self) -> int:
        return len(self.firsts)

    def write(self, path: Path) -> None:
        """Write ``unit`` of each example as an Arrow stream."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
            stream.write_batch(pa.record_batch([pa.array(self.of_example, type=pa.int32())], schema=SCHEMA))


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLimits:
    """Public limits on the part of a unit that is trained on."""

    tokens_per_record: int
    """Most tokens of a record; a longer one has no effect."""
    tokens: int | None = None
    """Most tokens of all records of a unit together."""
    records: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundUnits:
    """The units with a record to train on, by its first place, and the number of units without one."""

    groups: Groups
    idle: int
    """Number of units without effect. Private."""

    @property
    def firsts(self) -> Order:
        """Return the first record of each unit; shape (units,)."""
        return self.groups.rows[self.groups.offsets[:-1]]

    def __len__(self) -> int:
        return len(self.groups)


def find_units(
    table: PrivateTable, lengths: Numbers, config: SafeSynthesizerParameters, limits: UnitLimits
) -> FoundUnits:
    """Return the records of each unit to train on: its first ones, as many as the limits allow.

    ``lengths`` are the tokens of each record. A record without a unit's value belongs to no unit.
    """
    owners = _owners(table, unit_column(config))
    places = np.flatnonzero((owners >= 0) & ~table.null & (lengths <= limits.tokens_per_record))
    rows, units = _by_unit(places, owners, _ranks(table, config))
    kept = _within(rows, units, lengths, limits)
    rows, (_, units) = rows[kept], np.unique(units[kept], return_inverse=True)
    offsets = offsets_of(np.bincount(units))
    tokens = np.diff(offsets_of(lengths[rows])[offsets])
    all_units = len(np.unique(owners[owners >= 0]))
    return FoundUnits(
        groups=Groups(rows=rows, offsets=offsets, tokens=tokens), idle=all_units - (len(offsets) - 1)
    )


def toss(
    units: FoundUnits,
    table: PrivateTable,
    config: SafeSynthesizerParameters,
    coin: Coin,
    *,
    share: float,
) -> npt.NDArray[np.bool_]:
    """Toss each unit's coin, by the unit's value or, for a record, by all of its cells; shape (units,)."""
    if share == 0:
        return np.zeros(len(units), dtype=bool)
    column = unit_column(config)
    of = tuple(table.raw.items()) if column is None else ((column, _values(_named(table, column))),)
    return coin.toss(identities(of, units.firsts), share=share)


def take(units: Groups, chosen: Numbers) -> Groups:
    """Return some of the units, in the given order."""
    rows, sizes = gather(units.rows, units.offsets, chosen)
    return Groups(rows=rows, offsets=offsets_of(sizes), tokens=units.tokens[chosen])


def _owners(table: PrivateTable, column: str | None) -> Numbers:
    """Return the unit number of each place, -1 where there is none; shape (places,)."""
    if column is None:
        return np.arange(len(table), dtype=np.int64)
    found = _named(table, column)
    missing = np.asarray([value is None for value in found.values], dtype=bool)
    return np.where(table.null | missing[found.codes], -1, found.codes).astype(np.int64)


def _named(table: PrivateTable, name: str) -> Column:
    return next(column for column in table.columns if column.name == name)


def _values(column: Column) -> Raw:
    """Return a unit's value as its records write it, so that files of several formats agree on it."""
    return Raw(codes=column.codes, cells=[text.encode("utf-8", "surrogatepass") for text in column.texts])


def _ranks(table: PrivateTable, config: SafeSynthesizerParameters) -> Numbers | None:
    """Return the ranks by which a group's records are ordered; ``None`` for the file's order."""
    name = config.data.order_training_examples_by
    if name is None:
        return None
    column, declared = _named(table, name), config.guarantee.columns.get(name, PublicColumn())
    keys = [_order_key(value, table.types[name], declared.format) for value in column.values]
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    # Values that count as equal keep the file's order.
    equal = {key: rank for rank, key in zip(ranks.tolist(), keys, strict=True)}
    return np.asarray([equal[key] for key in keys], dtype=np.int64)[column.codes]


def _order_key(value: object, type_: ColumnType, form: str | None) -> tuple[int, Any]:
    """Return a key that sorts numbers and times first, then texts, then the rest, and nulls last."""
    if value is None:
        return 3, 0
    if isinstance(value, int | float | Decimal):
        return 0, value
    if not isinstance(value, str):
        return 2, str(value)
    seconds = _seconds(value, form) if type_ is ColumnType.DATETIME and form is not None else None
    return (1, value) if seconds is None else (0, seconds)


def _seconds(text: str, form: str) -> float | None:
    """Return a time as seconds; ``None`` if it has another form: a declared category's, or the file's."""
    try:
        moment = datetime.strptime(text, form)  # noqa: DTZ007 (given one in the next line)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _by_unit(places: Order, owners: Numbers, ranks: Numbers | None) -> tuple[Order, Numbers]:
    """Return the records unit after unit, each unit's in order, and the number of each record's unit.

    Units are numbered by their first places in the file.
    """
    units, _ = pd.factorize(owners[places])
    keys: Sequence[Numbers] = (units,) if ranks is None else (ranks[places], units)
    order = np.lexsort(keys)
    return places[order], units[order].astype(np.int64)


def _within(rows: Order, units: Numbers, lengths: Numbers, limits: UnitLimits) -> npt.NDArray[np.bool_]:
    """Tell whether each record is among the first of its unit within the limits; shape (records,)."""
    kept = np.ones(len(rows), dtype=bool)
    starts = np.searchsorted(units, units)
    if limits.records is not None:
        kept &= np.arange(len(rows)) - starts < limits.records
    if limits.tokens is not None:
        totals = offsets_of(lengths[rows])
        kept &= totals[1:] - totals[starts] <= limits.tokens
    return kept
