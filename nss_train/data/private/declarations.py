"""The check that a table's columns fit the config's declarations, from public facts alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters, PublicColumn
from nss_train.contract import TableLimits
from nss_train.errors import Problem

_INDEX = re.compile(r"__index_level_\d+__")
_SHOWN_NAMES = 20
_NUMBERS = (ColumnType.INTEGER, ColumnType.NUMBER)
_BOUNDED = (*_NUMBERS, ColumnType.ANY)
_FITTING: Mapping[ColumnType, tuple[ColumnType, ...]] = {
    ColumnType.INTEGER: (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.STRING),
    ColumnType.NUMBER: (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.STRING),
    ColumnType.BOOLEAN: (ColumnType.BOOLEAN, ColumnType.STRING),
    ColumnType.STRING: tuple(ColumnType),
    ColumnType.DATETIME: (ColumnType.DATETIME, ColumnType.STRING),
    ColumnType.JSON: (ColumnType.JSON,),
}
"""Types that a column of a Parquet file can be declared as, besides ``any``."""


def is_kept(name: str) -> bool:
    """Tell whether a column is read: all but the index that pandas writes beside the table."""
    return not _INDEX.fullmatch(name)


def name_problems(names: Sequence[str]) -> Iterator[Problem]:
    """Yield the problems with the names of a header or of a schema."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        remedy = "these column names appear more than once; rename them"
        yield Problem(field="table.columns", value=_shown(repeated), remedy=remedy)
    nameless = [number for number, name in enumerate(names, 1) if not name.strip()]
    if nameless:
        remedy = "these columns have no name; name them, or leave them out"
        yield Problem(field="table.columns", value=_shown(nameless), remedy=remedy)


def width_problems(names: Sequence[str], limits: TableLimits | None) -> Iterator[Problem]:
    """Yield a problem if there are more columns than the operator allows."""
    if limits is not None and len(names) > limits.columns:
        remedy = f"at most {limits.columns:,}; leave columns out, or ask the operator"
        yield Problem(field="table.columns", value=f"{len(names):,}", remedy=remedy)


def columns_needed(names: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for JSON Lines without declared columns: the set of all keys depends on all records."""
    if not names:
        remedy = "JSON Lines under privacy needs its columns declared; `nss-train check` proposes them"
        yield Problem(field="guarantee.columns", value=None, remedy=remedy)


def column_problem(name: str, names: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem if the table lacks the column whose values are units."""
    if name not in names:
        remedy = f"the table has no such column; it has {_shown(names)}"
        yield Problem(field="guarantee.unit_column", value=name, remedy=remedy)


def declaration_problems(
    names: Sequence[str], types: Mapping[str, ColumnType], guarantee: GuaranteeParameters
) -> Iterator[Problem]:
    """Yield problems of declarations for missing columns, or that contradict themselves or the schema."""
    for name, declared in guarantee.columns.items():
        if name not in names or not is_kept(name):
            yield _problem(name, f"the table has no such column; it has {_shown(filter(is_kept, names))}")
            continue
        for remedy in _contradictions(declared, types.get(name)):
            yield _problem(name, remedy)


def undeclared_problems(names: Sequence[str], guarantee: GuaranteeParameters) -> Iterator[Problem]:
    """Yield a problem for a frame's columns without a declared type: dtypes are inferred from all rows."""
    untyped = [name for name in names if guarantee.columns.get(name, PublicColumn()).type is None]
    if untyped:
        remedy = (
            "declare the type of these columns, or give the path of a file: "
            "a frame's own types depend on all its rows"
        )
        yield Problem(field="guarantee.columns", value=_shown(untyped, all_=True), remedy=remedy)


def _contradictions(declared: PublicColumn, physical: ColumnType | None) -> Iterator[str]:
    type_ = declared.type or physical or ColumnType.ANY
    if declared.type not in (None, ColumnType.ANY, *_FITTING.get(physical or ColumnType.STRING, ())):
        yield f"the file's schema says {physical}; it cannot be read as {declared.type}"
    low, high = declared.minimum, declared.maximum
    if (low is not None or high is not None) and type_ not in _BOUNDED:
        yield f"only numbers have bounds, and the column is of type {type_}; name categories"
    elif low is not None and high is not None and _is_empty(low, high, type_):
        yield f"no {type_} lies between minimum {low:g} and maximum {high:g}"
    if declared.format is not None and type_ is not ColumnType.DATETIME:
        yield f"only datetime columns have a format, and the column is of type {type_}"
    if declared.format is not None and not _is_format(declared.format):
        yield f"strptime cannot read what it writes as {declared.format!r}; give a format such as %Y-%m-%d"
    if declared.categories is not None and type_ is ColumnType.JSON:
        yield "lists and objects have no categories"
    else:
        wrong = [value for value in (*(declared.categories or ()), declared.other) if not _fits(value, type_)]
        if wrong:
            yield f"not of type {type_}: {_shown(wrong)}"


def _is_empty(low: float, high: float, type_: ColumnType) -> bool:
    return math.ceil(low) > math.floor(high) if type_ is ColumnType.INTEGER else low > high


def _fits(value: object, type_: ColumnType) -> bool:
    if value is None or type_ is ColumnType.ANY:
        return value is None or isinstance(value, str | bool | int | float)
    if isinstance(value, bool) or type_ is ColumnType.BOOLEAN:
        return isinstance(value, bool) and type_ is ColumnType.BOOLEAN
    if type_ is ColumnType.INTEGER:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, int | float if type_ is ColumnType.NUMBER else str)


def _is_format(form: str) -> bool:
    """Tell whether times can be read by a format; one that cannot would only fail at a cell that has text."""
    try:
        datetime.strptime(datetime(2024, 2, 28, tzinfo=UTC).strftime(form), form)  # noqa: DTZ007
    except (ValueError, re.error):
        return False
    return True


def _problem(name: str, remedy: str) -> Problem:
    return Problem(field=f"guarantee.columns.{name}", value=None, remedy=remedy)


def _shown(values: object, *, all_: bool = False) -> str:
    found = list(values)  # type: ignore[call-overload]
    more = "" if all_ or len(found) <= _SHOWN_NAMES else f" and {len(found) - _SHOWN_NAMES} more"
    return ", ".join(str(value) for value in (found if all_ else found[:_SHOWN_NAMES])) + more
