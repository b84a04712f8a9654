"""The schema that a private job publishes: declarations, noisy statistics and types.

Names and order of the columns count as public, and so do types that are declared or given by the file. A
column typed cell by cell has no type here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters, SchemaSource
from nss_train.data.assembly.layout import Order
from nss_train.data.auto_values import Choice
from nss_train.data.tokenization.distinct_values import Column
from nss_train.privacy.draw import DrawnColumn
from nss_train.privacy.schema import noisy_statistics

logger = logging.getLogger(__name__)

Types = Mapping[str, ColumnType]

JSON_TYPES: Mapping[ColumnType, tuple[str, ...]] = {
    ColumnType.INTEGER: ("integer",),
    ColumnType.NUMBER: ("number",),
    ColumnType.BOOLEAN: ("boolean",),
    ColumnType.STRING: ("string",),
    ColumnType.DATETIME: ("string",),
    ColumnType.JSON: ("array", "object"),
    ColumnType.ANY: (),
}
NUMBERS = (ColumnType.INTEGER, ColumnType.NUMBER)
CATEGORIES = (ColumnType.STRING, ColumnType.ANY)
WEIGHTS = dict.fromkeys(CATEGORIES, 2) | dict.fromkeys(NUMBERS, 1)
"""Weights of ε by type, for the types that noisy statistics suit. At a usual δ, categories are found from
counts of about 14 times the noise's scale on, buckets of a number from about 7 times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedSchema:
    """A JSON schema, and the reason for each column's description."""

    document: Mapping[str, Any]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Purse:
    """The share of ε and δ that one column may spend."""

    epsilon: float
    delta: float


def paid_columns(types: Types, guarantee: GuaranteeParameters) -> list[str]:
    """Return the names of the columns that ε is spent on: undeclared ones of a type in :data:`WEIGHTS`."""
    if guarantee.schema_source is not SchemaSource.PRIVATE:
        return []
    return [name for name, type_ in types.items() if not _is_declared(name, guarantee) and type_ in WEIGHTS]


def draw_schema(
    columns: Sequence[Column],
    types: Types,
    firsts: Order,
    guarantee: GuaranteeParameters,
    *,
    units: int,
    epsilon: float,
    delta: float,
) -> dict[str, DrawnColumn]:
    """Draw the columns' statistics from one record of each unit (``firsts``), within (ε, δ) in total.

    ``units`` is n, which is not taken from the table.
    """
    purses = _purses(paid_columns(types, guarantee), types, epsilon, delta)
    return {
        column.name: _drawn(column, types[column.name], firsts, purses[column.name], units)
        for column in columns
        if column.name in purses
    }


def publish_schema(
    types: Types, guarantee: GuaranteeParameters, drawn: Mapping[str, DrawnColumn]
) -> PublishedSchema:
    """Return a schema of all columns from public facts and drawn ones; a raw schema stays empty here."""
    if guarantee.schema_source is SchemaSource.RAW:
        reason = "guarantee.schema_source is raw: the table's own values, outside the guarantee"
        return PublishedSchema(document={}, choices=(Choice(name="schema", value="raw", reason=reason),))
    known = {name: drawn.get(name) or _public(name, types[name], guarantee) for name in types}
    required = [name for name, column in guarantee.columns.items() if name in types and not column.nullable]
    return PublishedSchema(
        document={
            "type": "object",
            "properties": {
                name: _property(JSON_TYPES[types[name]], found, nullable=name not in required)
                for name, found in known.items()
            },
            "required": [name for name in types if name in required],
        },
        choices=tuple(
            Choice(name=f"schema.{name}", value=found.how, reason=found.reason)
            for name, found in known.items()
        ),
    )


def _is_declared(name: str, guarantee: GuaranteeParameters) -> bool:
    """Tell whether a declaration fixes a column's schema; one of a type alone leaves the rest to noise."""
    column = guarantee.columns.get(name)
    if column is None:
        return False
    limited = column.categories is not None or column.minimum is not None or column.maximum is not None
    return limited or column.type is None


def _purses(paid: Sequence[str], types: Types, epsilon: float, delta: float) -> dict[str, _Purse]:
    """Divide ε by weight, and δ equally among the columns searched for categories."""
    searched = sum(types[name] in CATEGORIES for name in paid)
    total = sum(WEIGHTS[types[name]] for name in paid)
    return {
        name: _Purse(epsilon=epsilon * WEIGHTS[types[name]] / total, delta=delta / max(1, searched))
        for name in paid
    }


def _public(name: str, type_: ColumnType, guarantee: GuaranteeParameters) -> DrawnColumn:
    if _is_declared(name, guarantee):
        column = guarantee.columns[name]
        found = DrawnColumn(
            how="declared",
            reason="guarantee.columns declares it public",
            categories=column.categories,
            minimum=column.minimum,
            maximum=column.maximum,
        )
    else:
        reason = f"a type counts as public, and no more of {type_} columns is looked at"
        if guarantee.schema_source is SchemaSource.DECLARED:
            reason = "a type counts as public, and guarantee.columns declares no more"
        found = DrawnColumn(how="type", reason=reason)
    _log(name, found.how, found.reason)
    return found


def _drawn(column: Column, type_: ColumnType, firsts: Order, purse: _Purse, units: int) -> DrawnColumn:
    # The result is not logged: nothing of a lost attempt may become known.
    if type_ in CATEGORIES:
        paid = f"ε = {purse.epsilon:.4g} and δ = {purse.delta:.3g} of the schema's share"
        _log(column.name, "categories with noise", f"it may be text and is not declared; {paid}")
        return _categories(column, firsts, purse, paid, units)
    paid = f"ε = {purse.epsilon:.4g} of the schema's share"
    _log(column.name, "bounds with noise", f"it is a number and not declared; {paid}")
    return _bounds(column, firsts, purse, paid, units)


def _categories(column: Column, firsts: Order, purse: _Purse, paid: str, units: int) -> DrawnColumn:
    values = column.codes[firsts].tolist()
    found = noisy_statistics.categories(values, units=units, epsilon=purse.epsilon, delta=purse.delta)
    named = sorted((json.loads(column.texts[code]) for code in found.found), key=_in_order)
    named = [value for value in named if value is not None]
    if not named or found.share < noisy_statistics.COVERED:
        reason = (
            f"values with noisy counts of {found.threshold} or more do not make up"
            f" {noisy_statistics.COVERED:.0%} of the units; {paid}"
        )
        return DrawnColumn(how="type", reason=reason)
    reason = f"{found.threshold} or more units share each, by noisy counts; {paid}"
    return DrawnColumn(categories=tuple(named), how=f"{len(named)} categories", reason=reason)


def _in_order(value: object) -> tuple[str, Any]:
    """Return a key that sorts a column's mixed values: numbers, then texts, then the rest."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return "3", json.dumps(value)
    return ("2", value) if isinstance(value, str) else ("1", value)


def _bounds(column: Column, firsts: Order, purse: _Purse, paid: str, units: int) -> DrawnColumn:
    every = np.asarray([np.nan if value is None else value for value in column.values], dtype=np.float64)
    values = every[column.codes[firsts]]
    found = noisy_statistics.bounds(values[np.isfinite(values)], units=units, epsilon=purse.epsilon)
    if found.minimum is None and found.maximum is None:
        reason = f"no bucket of values has a noisy count of {found.threshold} or more; {paid}"
        return DrawnColumn(how="type", reason=reason)
    reason = f"buckets of {found.threshold} or more units lie within, by noisy counts; {paid}"
    return DrawnColumn(minimum=found.minimum, maximum=found.maximum, how="bounds", reason=reason)


def _property(kinds: Sequence[str], known: DrawnColumn, *, nullable: bool) -> dict[str, Any]:
    if known.categories is not None:
        missing = [None] if nullable and None not in known.categories else []
        return {"enum": [*known.categories, *missing]}
    allowed = [*kinds, "null"] if nullable else [*kinds]
    typed = {"type": allowed[0] if len(allowed) == 1 else allowed} if kinds else {}
    return typed | dict(_limits(known))


def _limits(known: DrawnColumn) -> Iterator[tuple[str, float]]:
    if known.minimum is not None:
        yield "minimum", known.minimum
    if known.maximum is not None:
        yield "maximum", known.maximum


def _log(name: str, how: str, reason: str) -> None:
    fields = {"action": "privacy.schema", "column": name, "value": how}
    logger.info("schema of %s: %s because %s", name, how, reason, extra=fields)
