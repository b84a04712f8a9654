"""The reading of a table under privacy: each record from its own cells and public declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nss_train.config.sections.guarantee import GuaranteeParameters
from nss_train.contract import TableLimits
from nss_train.data.private.declarations import (
    columns_needed,
    declaration_problems,
    is_kept,
    name_problems,
    undeclared_problems,
    width_problems,
)
from nss_train.data.private.files import csv_lines, json_lines, parquet_columns
from nss_train.data.private.files.frame_cells import frame_cells
from nss_train.data.private.files.lines import Line, chunks, lines
from nss_train.data.private.files.preconditions import Watch, check_file, refuse
from nss_train.data.private.table import PrivateTable
from nss_train.data.private.values.coding import NUMBER_OF, AsRead, Coder, Fault
from nss_train.data.private.values.conversion import convert

CELLS_AT_ONCE = 2**16
"""Most cells of a text file that are held as Python objects at a time."""
DEPTH = TableLimits().depth
"""Depth limit of a JSON line if the operator sets none."""

Parse = Callable[[Line], Sequence[Any] | Fault]


def read_private_table(
    path: Path, guarantee: GuaranteeParameters, limits: TableLimits | None = None
) -> PrivateTable:
    """Read a CSV, JSON Lines or Parquet file; a faulty record only affects itself.

    Raises :class:`~nss_train.errors.DataError` or :class:`~nss_train.errors.ParameterError` only for what the
    format, names and types of the columns, the config and the number of places reveal.
    """
    return convert(read_cells(path, guarantee, limits), guarantee, limits)


def read_private_frame(frame: pd.DataFrame, guarantee: GuaranteeParameters) -> PrivateTable:
    """Read a frame, cell by cell; :class:`~nss_train.errors.ParameterError` unless all types are declared."""
    names = [str(name) for name in frame.columns]
    refuse(
        [
            *name_problems(names),
            *undeclared_problems(names, guarantee),
            *declaration_problems(names, {}, guarantee),
        ]
    )
    columns = {name: frame_cells(frame.iloc[:, index]) for index, name in enumerate(names) if is_kept(name)}
    return convert(AsRead(columns=columns, types={}, faults=np.zeros(len(frame), dtype=np.int8)), guarantee)


def read_cells(path: Path, guarantee: GuaranteeParameters, limits: TableLimits | None = None) -> AsRead:
    """Return the cells of a file, and which of its places hold no record."""
    check_file(path, limits)
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    return readers.get(path.suffix.lower(), _read_json_lines)(path, guarantee, limits)


def _read_csv(path: Path, guarantee: GuaranteeParameters, limits: TableLimits | None) -> AsRead:
    found = csv_lines.records(path, multiline=guarantee.multiline_cells)
    names = csv_lines.header(next(found, b""), path.name)
    refuse(
        [
            *name_problems(names),
            *width_problems(names, limits),
            *declaration_problems(names, {}, guarantee),
        ]
    )
    parse = partial(csv_lines.cells, width=len(names))
    return _gather(_parsed(found, parse, names, path, limits), names, csv_lines.as_cell)


def _read_json_lines(path: Path, guarantee: GuaranteeParameters, limits: TableLimits | None) -> AsRead:
    names = [name for name in guarantee.columns if is_kept(name)]
    refuse(
        [
            *columns_needed(names),
            *width_problems(names, limits),
            *declaration_problems(names, {}, guarantee),
        ]
    )
    parse = partial(json_lines.cells, names=names, depth=DEPTH if limits is None else limits.depth)
    return _gather(_parsed(lines(path), parse, names, path, limits), names, json_lines.as_cell)


def _read_parquet(path: Path, guarantee: GuaranteeParameters, limits: TableLimits | None) -> AsRead:
    with parquet_columns.opened(path) as file:
        names, types = parquet_columns.schema_of(file)
        refuse(
            [
                *name_problems(names),
                *parquet_columns.unreadable_columns(names, types),
                *width_problems(names, limits),
                *declaration_problems(names, types, guarantee),
            ]
        )
        return parquet_columns.read(file, [name for name in names if is_kept(name)], types)


def _parsed(
    found: Iterator[Line], parse: Parse, names: Sequence[str], path: Path, limits: TableLimits | None
) -> Iterator[list[Sequence[Any] | Fault]]:
    """Yield the records of a text file, some thousand at a time."""
    watch = Watch(file_bytes=path.stat().st_size, columns=len(names), limits=limits)
    for chunk in chunks(found, max(1, CELLS_AT_ONCE // len(names))):
        watch.add(len(chunk))
        yield [parse(line) for line in chunk]


def _gather(
    parsed: Iterator[list[Sequence[Any] | Fault]], names: Sequence[str], as_cell: Callable[[Any], bytes]
) -> AsRead:
    """Return all records of a text file, column by column."""
    coders = {name: Coder() for name in names if is_kept(name)}
    faults = [np.zeros(0, dtype=np.int8)]
    for records in parsed:
        faults.append(np.array([NUMBER_OF.get(record, 0) for record in _faults(records)], dtype=np.int8))
        full = (None,) * len(names)  # keeps the columns that no record of this part has
        rows = (() if isinstance(record, Fault) else record for record in records)
        for name, (_, *cells) in zip(names, zip_longest(full, *rows), strict=True):
            if name in coders:
                coders[name].add(cells)
    return AsRead(
        columns={name: coder.raw(as_cell) for name, coder in coders.items()},
        types={},
        faults=np.concatenate(faults),
    )


def _faults(records: Sequence[Sequence[Any] | Fault]) -> Iterator[Fault]:
    return (record if isinstance(record, Fault) else Fault.NONE for record in records)
