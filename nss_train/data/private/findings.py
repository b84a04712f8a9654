"""The exact content of a table, for its owner: a job never reports any of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from nss_train.config.sections.guarantee import GuaranteeParameters
from nss_train.contract import TableLimits
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.data.private.values.cells import parted
from nss_train.data.private.values.coding import NUMBER_OF, AsRead, Fault
from nss_train.data.private.values.conversion import convert, rule_of
from nss_train.data.private.values.rules import VOID, Rule, is_null
from nss_train.data.private.values.values import NULL, Value

SHOWN_PLACES = 5


class Fit(StrEnum):
    """The relation of a cell to its column's declarations."""

    NULL = "null"
    FITS = "fits"
    MISFIT = "not of the type"
    CLAMPED = "beyond a bound"
    OUTSIDE = "no declared category"
    VOID = "too long, or no text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """A table as a private training reads it, with the cells and rules that explain it."""

    read: AsRead
    table: PrivateTable
    guarantee: GuaranteeParameters
    limits: TableLimits

    @classmethod
    def of(cls, read: AsRead, guarantee: GuaranteeParameters, limits: TableLimits) -> Examined:
        """Examine cells that have been read already."""
        table = convert(read, guarantee, limits)
        return cls(read=read, table=table, guarantee=guarantee, limits=limits)

    def rule(self, name: str) -> Rule:
        """Return the rule by which a column is read."""
        return rule_of(name, self.read, self.guarantee, self.limits)


def describe(found: Examined, *, unit_column: str | None) -> dict[str, Any]:
    """Return all findings as plain JSON. Places are numbered from 1, without a header."""
    return {
        "places": len(found.table),
        "null_records": int(found.table.null.sum()),
        "faults": dict(_faults(found.read)),
        "columns": {name: _column(raw, found.rule(name)) for name, raw in found.read.columns.items()},
        "units": _units(found, unit_column),
    }


def fit_of(cell: bytes, rule: Rule) -> Fit:
    """Return how one cell fits its column's rule."""
    if is_null(cell) and not rule.names(cell):
        return Fit.NULL
    if replace(rule, null=NULL).json_of(cell) is VOID:
        return Fit.VOID
    return Fit.FITS if rule.names(cell) else _fit_of_value(rule.read(*parted(cell)), rule)


def _fit_of_value(value: Value, rule: Rule) -> Fit:
    if value is None:
        return Fit.MISFIT
    if rule.bounds is not None and rule.bounds.within(value) != value:
        return Fit.CLAMPED
    return Fit.FITS if rule.categories is None or rule.categories.has(value) else Fit.OUTSIDE


def _column(raw: Raw, rule: Rule) -> dict[str, Any]:
    fits = [fit_of(cell, rule) for cell in raw.cells]
    counted = Counter[Fit]()
    for fit, count in zip(fits, np.bincount(raw.codes, minlength=len(fits)).tolist(), strict=True):
        counted[fit] += count
    odd = np.array([fit not in (Fit.NULL, Fit.FITS) for fit in fits], dtype=np.bool_)
    breaks = np.array([b"\n" in cell for cell in raw.cells], dtype=np.bool_)
    return {
        "type": rule.type.value,
        "nullable": rule.null is not VOID,
        "counts": {fit.value: counted[fit] for fit in Fit if counted[fit]},
        "first": _places(odd[raw.codes]),
        "with_line_breaks": int(breaks[raw.codes].sum()),
    }


def _faults(read: AsRead) -> Iterator[tuple[str, dict[str, Any]]]:
    for fault in Fault:
        here = read.faults == NUMBER_OF[fault]
        if fault is not Fault.NONE and here.any():
            yield fault.value, {"count": int(here.sum()), "first": _places(here)}


def _units(found: Examined, column: str | None) -> dict[str, Any]:
    """Return how the records spread over the units of privacy."""
    used = ~found.table.null
    if column is None:
        return {"unit": "record", "count": int(used.sum())}
    raw = next(column_ for column_ in found.table.columns if column_.name == column)
    named = np.array([value is not None for value in raw.values], dtype=np.bool_)[raw.codes]
    sizes = np.bincount(raw.codes[used & named])
    most = found.guarantee.max_records_per_unit
    return {
        "unit": f"value of {column}",
        "count": int((sizes > 0).sum()),
        "largest": int(sizes.max(initial=0)),
        "records_beyond_the_limit": int(np.maximum(sizes - most, 0).sum()),
        "records_without_a_unit": int((used & ~named).sum()),
    }


def _places(where: npt.NDArray[np.bool_]) -> Sequence[int]:
    found: list[int] = (np.flatnonzero(where)[:SHOWN_PLACES] + 1).tolist()
    return found
