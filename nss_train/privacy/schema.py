"""The schema that a private job publishes: what is declared, what noise allows, and types besides.

Names, order and types of the columns count as public.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.guarantee import GuaranteeParameters, PublicColumn, SchemaSource
from nss_train.config.resolve import Choice
from nss_train.data.distinct import Column
from nss_train.data.plan import Order
from nss_train.data.schema import make_schema
from nss_train.errors import ParameterError, Problem
from nss_train.privacy import release

logger = logging.getLogger(__name__)

WEIGHTS = {"string": 2, "integer": 1, "number": 1}
"""Shares of ε by type, as far as noise is of use. Categories need counts of some 14 times the noise's
scale to be found at a usual δ, buckets of a number some 7 times."""


_TYPES = {
    "boolean": types.is_boolean,
    "integer": types.is_integer,
    "number": types.is_floating,
    "object": types.is_struct,
    "array": types.is_nested,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedSchema:
    """A JSON schema, and why each column is described as it is."""

    document: Mapping[str, Any]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """What may be known of a column, and how it came to be known."""

    column: PublicColumn
    how: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Purse:
    """What one column may spend."""

    epsilon: float
    delta: float


def check_declared(columns: Sequence[Column], guarantee: GuaranteeParameters) -> None:
    """Raise :class:`ParameterError` naming every declaration that no column of the table can have."""
    types_ = {column.name: json_type(column.kind) for column in columns}
    problems = []
    for name, declared in guarantee.columns.items():
        bounded = declared.minimum is not None or declared.maximum is not None
        if name not in types_:
            remedy = f"the table has no such column; it has {', '.join(types_)}"
        elif bounded and types_[name] not in {"integer", "number"}:
            remedy = f"only numbers have bounds, and the column is of type {types_[name]}; name categories"
        else:
            continue
        problems.append(Problem(field=f"guarantee.columns.{name}", value=None, remedy=remedy))
    if problems:
        raise ParameterError("The declared columns do not fit the table.", problems)


def paid_columns(columns: Sequence[Column], guarantee: GuaranteeParameters) -> list[Column]:
    """Those that a share of ε is spent on: of a type that noise is of use for, and not declared."""
    if guarantee.schema_source is not SchemaSource.PRIVATE:
        return []
    return [c for c in columns if c.name not in guarantee.columns and (c.is_number or _is_text(c.kind))]


def publish_schema(
    columns: Sequence[Column],
    firsts: Order,
    config: SafeSynthesizerParameters,
    *,
    epsilon: float,
    delta: float,
) -> PublishedSchema:
    """Describe all columns within (ε, δ), looking at one record of each unit (``firsts``) at most."""
    guarantee = config.guarantee
    if guarantee.schema_source is SchemaSource.RAW:
        reason = "guarantee.schema_source is raw: the table's own values, outside the guarantee"
        return PublishedSchema(
            document=make_schema(columns), choices=(Choice(name="schema", value="raw", reason=reason),)
        )
    purses = _purses(paid_columns(columns, guarantee), epsilon, delta)
    known = {column.name: _know(column, firsts, guarantee, purses.get(column.name)) for column in columns}
    return PublishedSchema(
        document={
            "type": "object",
            "properties": {c.name: _property(json_type(c.kind), known[c.name].column) for c in columns},
            "required": [name for name, found in known.items() if not found.column.nullable],
        },
        choices=tuple(
            Choice(name=f"schema.{name}", value=found.how, reason=found.reason)
            for name, found in known.items()
        ),
    )


def json_type(kind: pa.DataType) -> str:
    """The JSON type of a column's values."""
    if types.is_dictionary(kind):
        return json_type(kind.value_type)
    return next((name for name, belongs in _TYPES.items() if belongs(kind)), "string")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _purses(paid: Sequence[Column], epsilon: float, delta: float) -> dict[str, _Purse]:
    """ε by weight; δ among those that look for categories."""
    weights = {column.name: WEIGHTS[json_type(column.kind)] for column in paid}
    searched = sum(json_type(column.kind) == "string" for column in paid)
    total = sum(weights.values())
    return {
        name: _Purse(epsilon=epsilon * weight / total, delta=delta / max(1, searched))
        for name, weight in weights.items()
    }


def _know(column: Column, firsts: Order, guarantee: GuaranteeParameters, purse: _Purse | None) -> _Known:
    if column.name in guarantee.columns:
        found = guarantee.columns[column.name]
        known = _Known(column=found, how="declared", reason="guarantee.columns declares it public")
    elif purse is None:
        reason = f"a type counts as public, and no more of {json_type(column.kind)} columns is looked at"
        if guarantee.schema_source is SchemaSource.DECLARED:
            reason = "a type counts as public, and guarantee.columns declares no more"
        known = _Known(column=PublicColumn(), how="type", reason=reason)
    else:
        return _noisy(column, firsts, purse)
    _log(column.name, known.how, known.reason)
    return known


def _noisy(column: Column, firsts: Order, purse: _Purse) -> _Known:
    # What comes out is not logged: of an attempt that is lost nothing shall be known.
    if json_type(column.kind) == "string":
        paid = f"ε = {purse.epsilon:.4g} and δ = {purse.delta:.3g} of the schema's share"
        _log(column.name, "categories with noise", f"it is text and not declared; {paid}")
        return _noisy_categories(column, firsts, purse, paid)
    paid = f"ε = {purse.epsilon:.4g} of the schema's share"
    _log(column.name, "bounds with noise", f"it is a number and not declared; {paid}")
    return _noisy_bounds(column, firsts, purse, paid)


def _noisy_categories(column: Column, firsts: Order, purse: _Purse, paid: str) -> _Known:
    values = column.codes[firsts].tolist()
    found = release.categories(values, epsilon=purse.epsilon, delta=purse.delta)
    named = tuple(sorted(column.values[code] for code in found.found if column.values[code] is not None))
    if not named or found.share < release.COVERED:
        reason = (
            f"values with noisy counts of {found.threshold} or more do not make up"
            f" {release.COVERED:.0%} of the units; {paid}"
        )
        return _Known(column=PublicColumn(), how="type", reason=reason)
    reason = f"{found.threshold} or more units share each, by noisy counts; {paid}"
    return _Known(column=PublicColumn(categories=named), how=f"{len(named)} categories", reason=reason)


def _noisy_bounds(column: Column, firsts: Order, purse: _Purse, paid: str) -> _Known:
    every = np.asarray([np.nan if value is None else value for value in column.values], dtype=np.float64)
    values = every[column.codes[firsts]]
    found = release.bounds(values[np.isfinite(values)], units=len(firsts), epsilon=purse.epsilon)
    known = PublicColumn(minimum=found.minimum, maximum=found.maximum)
    if found.minimum is None and found.maximum is None:
        reason = f"no bucket of values has a noisy count of {found.threshold} or more; {paid}"
        return _Known(column=known, how="type", reason=reason)
    reason = f"buckets of {found.threshold} or more units lie within, by noisy counts; {paid}"
    return _Known(column=known, how="bounds", reason=reason)


def _property(kind: str, known: PublicColumn) -> dict[str, Any]:
    if known.categories is not None:
        missing = [None] if known.nullable and None not in known.categories else []
        return {"enum": [*known.categories, *missing]}
    return {"type": [kind, "null"] if known.nullable else kind, **dict(_bounds(known))}


def _bounds(known: PublicColumn) -> Iterator[tuple[str, float]]:
    if known.minimum is not None:
        yield "minimum", known.minimum
    if known.maximum is not None:
        yield "maximum", known.maximum


def _log(name: str, how: str, reason: str) -> None:
    fields = {"action": "privacy.schema", "column": name, "value": how}
    logger.info("schema of %s: %s because %s", name, how, reason, extra=fields)
