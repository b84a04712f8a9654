"""The conversion of cells to columns of values: each distinct cell is converted once, on its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters, PublicColumn
from nss_train.contract import TableLimits
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.data.private.values.cells import MISSING
from nss_train.data.private.values.coding import AsRead
from nss_train.data.private.values.rules import VOID, Rule
from nss_train.data.private.values.values import NULL
from nss_train.data.tokenization.distinct_values import Codes, Column, name_text

Texts = Sequence[str | None]
"""JSON of each distinct cell; ``None`` if its record has no effect."""
Places = npt.NDArray[np.bool_]
_T = TypeVar("_T", str, bytes)

_KINDS = {
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.JSON: pa.struct([]),
}


def convert(read: AsRead, guarantee: GuaranteeParameters, limits: TableLimits | None = None) -> PrivateTable:
    """Convert the cells to values; null records lose their content."""
    rules = {name: rule_of(name, read, guarantee, limits) for name in read.columns}
    texts = {name: [rules[name].json_of(cell) for cell in raw.cells] for name, raw in read.columns.items()}
    null = null_records(read, texts)
    return PrivateTable(
        columns=tuple(
            _column(name, rules[name].type, raw.codes, texts[name], null)
            for name, raw in read.columns.items()
        ),
        types={name: rule.type for name, rule in rules.items()},
        null=null,
        raw={name: _emptied(raw, null) for name, raw in read.columns.items()},
    )


def rule_of(name: str, read: AsRead, guarantee: GuaranteeParameters, limits: TableLimits | None) -> Rule:
    """Return the rule of a column, by its declared type, the file's type, or the type of each cell."""
    declared = guarantee.columns.get(name, PublicColumn())
    type_ = declared.type or read.types.get(name, ColumnType.ANY)
    return Rule.of(type_, declared, cell_chars=None if limits is None else limits.cell_chars)


def null_records(read: AsRead, texts: Mapping[str, Texts]) -> Places:
    """Return the places without a record, with an empty record, or with one that a cell voids."""
    void: Places = read.faults != 0
    empty: Places = np.ones(len(void), dtype=bool)
    for name, raw in read.columns.items():
        void |= _where(raw.codes, [text is VOID for text in texts[name]])
        empty &= _where(raw.codes, [text == NULL for text in texts[name]])
    return void | empty


def _where(codes: Codes, marks: Sequence[bool]) -> Places:
    return np.array(marks, dtype=np.bool_)[codes]


def _column(name: str, type_: ColumnType, codes: Codes, texts: Texts, null: Places) -> Column:
    """Return the distinct texts and values of the cells in use; equal texts have equal values."""
    own, found = _recoded(codes, [text or NULL for text in texts], null, NULL)
    return Column(
        name=name,
        label=name_text(name),
        kind=_KINDS.get(type_, pa.string()),
        codes=own,
        values=json.loads(f"[{','.join(found)}]"),
        texts=found,
    )


def _emptied(raw: Raw, null: Places) -> Raw:
    codes, cells = _recoded(raw.codes, raw.cells, null, MISSING)
    return Raw(codes=codes, cells=cells)


def _recoded(codes: Codes, items: Sequence[_T], null: Places, missing: _T) -> tuple[Codes, list[_T]]:
    """Return codes into the distinct items that are in use, with ``missing`` at the null places."""
    numbers: dict[_T, int] = {}
    merged = np.array([numbers.setdefault(item, len(numbers)) for item in items], dtype=np.int32)
    found = np.where(null, np.int32(numbers.setdefault(missing, len(numbers))), merged[codes])
    used, own = np.unique(found, return_inverse=True)
    distinct = list(numbers)
    return own.astype(np.int32), [distinct[number] for number in used]
