"""The units of privacy of a table: whose each record is. Each unit stands in the examples once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.resolve import unit_column
from nss_train.data.groups import Groups, find_groups
from nss_train.data.plan import Order
from nss_train.data.ragged import gather, offsets_of

Numbers = npt.NDArray[np.int64]

SCHEMA = pa.schema([("unit", pa.int32())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """Whose the training examples are."""

    of_example: Numbers
    """Unit number of each example, from 0, never decreasing; shape (examples,)."""
    firsts: Order
    """One record of each unit, its first: what a by-product may look at; shape (units,)."""

    def __len__(self) -> int:
        return len(self.firsts)

    def write(self, path: Path) -> None:
        """Write ``unit`` of each example as an Arrow stream."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
            stream.write_batch(pa.record_batch([pa.array(self.of_example, type=pa.int32())], schema=SCHEMA))


def find_units(table: pa.Table, lengths: Numbers, config: SafeSynthesizerParameters) -> Groups:
    """The records of each unit: a group in its order, else the first rows of a value, else one row.

    ``lengths`` are the tokens of each record. Which records a unit has does not depend on other units.
    """
    rows = np.arange(len(lengths), dtype=np.int64)
    column, data = unit_column(config), config.data
    if column is None:
        return Groups(rows=rows, offsets=offsets_of(np.ones_like(rows)), tokens=lengths)
    found = find_groups(table, rows, lengths, group_by=column, order_by=data.order_training_examples_by)
    if data.group_training_examples_by is not None:
        return found
    return _cut(found, lengths, most=config.guarantee.max_records_per_unit)


def take(units: Groups, chosen: Numbers) -> Groups:
    """Some of the units, in the given order."""
    rows, sizes = gather(units.rows, units.offsets, chosen)
    return Groups(rows=rows, offsets=offsets_of(sizes), tokens=units.tokens[chosen])


def _cut(units: Groups, lengths: Numbers, *, most: int) -> Groups:
    """Each unit's first records, ``most`` of them."""
    place = np.arange(len(units.rows)) - np.repeat(units.offsets[:-1], units.sizes)
    rows = units.rows[place < most]
    offsets = offsets_of(np.minimum(units.sizes, most))
    return Groups(rows=rows, offsets=offsets, tokens=np.diff(offsets_of(lengths[rows])[offsets]))
