"""Proposed declarations that a table's owner may publish: the types that most of its cells have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import yaml

from nss_train.config.sections.guarantee import ColumnType, PublicColumn
from nss_train.data.private.table import Raw
from nss_train.data.private.values.coding import AsRead
from nss_train.data.private.values.rules import Rule, is_null

MOST = 0.95
"""Least share of a column's values that must have the proposed type; the others become null."""

WARNING = (
    "What is declared is published with the adapter. Add bounds and categories only from what is known"
    " without the table, such as a code book: copied from the table, they tell of its records."
)

FORMATS = (
    *("".join(parts) for parts in product(("%Y-%m-%d",), (" ", "T"), ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f"))),
    "%Y-%m-%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
)
_LEADING_ZERO = re.compile(r"[+-]?0\d")


def propose(read: AsRead, declared: Mapping[str, PublicColumn]) -> dict[str, dict[str, str]]:
    """Return a type, and a format of dates, for each column that has none in the config or in the file."""
    return {
        name: _proposed(raw)
        for name, raw in read.columns.items()
        if name not in read.types and declared.get(name, PublicColumn()).type is None
    }


def as_yaml(proposed: Mapping[str, Mapping[str, str]]) -> str:
    """Return the proposals as the YAML of a config section."""
    document = {"guarantee": {"columns": {name: dict(column) for name, column in proposed.items()}}}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _proposed(raw: Raw) -> dict[str, str]:
    counts = np.bincount(raw.codes, minlength=len(raw.cells)).tolist()
    cells = {cell: count for cell, count in zip(raw.cells, counts, strict=True) if not is_null(cell)}
    if not cells:
        return {"type": ColumnType.STRING.value}
    zeros = _share(cells, lambda cell: bool(_LEADING_ZERO.match(cell[1:].decode("utf-8", "replace"))))
    types = (ColumnType.BOOLEAN, ColumnType.JSON) if zeros else _TYPES
    for type_ in types:
        if _share(cells, _reads(type_, None)) >= MOST:
            return {"type": type_.value}
    for form in FORMATS:
        if _share(cells, _reads(ColumnType.DATETIME, form)) >= MOST:
            return {"type": ColumnType.DATETIME.value, "format": form}
    strings = _share(cells, _reads(ColumnType.STRING, None))
    return {"type": (ColumnType.STRING if strings >= MOST else ColumnType.ANY).value}


_TYPES = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.BOOLEAN, ColumnType.JSON)


def _reads(type_: ColumnType, form: str | None) -> Callable[[bytes], bool]:
    rule = Rule.of(type_, PublicColumn(format=form, nullable=False), cell_chars=None)
    return lambda cell: rule.json_of(cell) is not None


def _share(cells: Mapping[bytes, int], fits: Callable[[bytes], bool]) -> float:
    return sum(count for cell, count in cells.items() if fits(cell)) / sum(cells.values())
