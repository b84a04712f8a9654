"""Mistakes in the reading of a table, planted on purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters, PublicColumn
from nss_train.contract import TableLimits
from nss_train.data.private import reading
from nss_train.data.private.files import csv_lines
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.data.private.values import conversion
from nss_train.data.private.values.coding import AsRead
from nss_train.data.private.values.rules import Rule
from nss_train.privacy.audit.neighbours.planted.fault import Plant

BATCH = 4
"""Number of rows that decide on a type together, in faults about batches."""


def types_of(rows: int | None) -> Plant:
    """Return a fault that types a column by the cells of its first rows: numbers, or else texts."""

    @contextmanager
    def plant() -> Iterator[None]:
        honest = conversion.rule_of

        def rule(name: str, read: AsRead, guarantee: GuaranteeParameters, limits: TableLimits | None) -> Rule:
            found, raw = honest(name, read, guarantee, limits), read.columns[name]
            if found.type is not ColumnType.ANY:
                return found
            cells = {raw.cells[code] for code in raw.codes[:rows]}
            is_number = all(_is_number(cell) for cell in cells if len(cell) > 1)
            type_ = ColumnType.NUMBER if is_number else ColumnType.STRING
            return Rule.of(type_, guarantee.columns.get(name, PublicColumn()), cell_chars=None)

        with mock.patch.object(conversion, "rule_of", rule):
            yield

    return plant


def _is_number(cell: bytes) -> bool:
    try:
        float(cell[1:])
    except ValueError:
        return False
    return True


@contextmanager
def types_per_batch() -> Iterator[None]:
    """Type a column batch by batch, by several rows together."""
    honest = conversion.convert

    def converted(read: AsRead, *given: Any) -> PrivateTable:
        starts = range(0, len(read.faults), BATCH)
        return _joined([honest(_part(read, slice(at, at + BATCH)), *given) for at in starts])

    with types_of(None)(), mock.patch.object(reading, "convert", converted):
        yield


def _part(read: AsRead, rows: slice) -> AsRead:
    columns = {name: Raw(codes=raw.codes[rows], cells=raw.cells) for name, raw in read.columns.items()}
    return replace(read, columns=columns, faults=read.faults[rows])


def _joined(parts: list[PrivateTable]) -> PrivateTable:
    first, *rest = parts
    for part in rest:
        columns = tuple(
            replace(
                one,
                codes=np.concatenate([one.codes, other.codes + len(one.values)]),
                values=[*one.values, *other.values],
                texts=[*one.texts, *other.texts],
            )
            for one, other in zip(first.columns, part.columns, strict=True)
        )
        raw = {
            name: Raw(
                codes=np.concatenate([one.codes, part.raw[name].codes + len(one.cells)]),
                cells=[*one.cells, *part.raw[name].cells],
            )
            for name, one in first.raw.items()
        }
        first = replace(first, columns=columns, raw=raw, null=np.concatenate([first.null, part.null]))
    return first


@contextmanager
def union_of_columns() -> Iterator[None]:
    """Take the union of all records' keys as the columns of JSON Lines."""
    honest = reading._read_json_lines  # noqa: SLF001 - faults are planted where they were made

    def read(path: Path, guarantee: GuaranteeParameters, *given: Any) -> AsRead:
        keys = dict.fromkeys(key for line in path.read_bytes().split(b"\n") for key in _keys(line))
        columns = {key: PublicColumn() for key in keys} | guarantee.columns
        return honest(path, guarantee.model_copy(update={"columns": columns}), *given)

    with mock.patch.object(reading, "_read_json_lines", read):
        yield


def _keys(line: bytes) -> list[str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []


@contextmanager
def quotes_across_lines() -> Iterator[None]:
    """Let a quote that is open at the end of a line include the next lines."""
    honest = csv_lines.records

    def records(path: Path, *, multiline: bool) -> Any:  # noqa: ARG001 - the fault is that it is ignored
        return honest(path, multiline=True)

    with mock.patch.object(csv_lines, "records", records):
        yield


@contextmanager
def trained_nulls() -> Iterator[None]:
    """Train on null records like any other."""

    def none(read: AsRead, _: Any) -> Any:
        return np.zeros(len(read.faults), dtype=bool)

    with mock.patch.object(conversion, "null_records", none):
        yield
