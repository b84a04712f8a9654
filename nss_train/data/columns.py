"""Checks of a table's rows and columns before anything expensive runs."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence

import pandas as pd

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.reading import ColumnReading, column_setting
from nss_train.errors import DataError, ParameterError, Problem, UserError
from nss_train.text.counted import counted

MIN_ROWS = 200
SMALL_ROWS = 1000
MANY_TIMES = 5
_FIELDS = {
    "Group by": "data.group_training_examples_by",
    "Order by": "data.order_training_examples_by",
    "Timestamp": "time_series.timestamp_column",
    "Unit": "guarantee.unit_column",
}


def check_groupby_column(frame: pd.DataFrame, column: str | None) -> None:
    """Check, as NSS does, that the group column exists and has no gaps; refuse lists as well."""
    if column is None:
        return
    hint = "set data.group_training_examples_by to one of the table's columns"
    if "," in column:
        hint = "multi-column grouping is not supported; use a single column name"
    check_present(frame, column, role="Group by", remedy=hint)
    check_no_nulls(frame, column, role="Group by")
    _check_flat(frame, column, role="Group by")


validate_groupby_column = check_groupby_column
"""The same check under the name that older versions of NSS used."""


def check_orderby_column(frame: pd.DataFrame, column: str | None) -> None:
    """Check, as NSS does, that the order column exists; refuse lists, which have no order."""
    if column is not None:
        check_present(frame, column, role="Order by")
        _check_flat(frame, column, role="Order by")


validate_orderby_column = check_orderby_column
"""The same check under the name that older versions of NSS used."""


def check_present(frame: pd.DataFrame, column: str, *, role: str, remedy: str = "") -> None:
    """Raise :class:`ParameterError` if a column that the config names is missing."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise ParameterError("MultiIndex columns are not supported; flatten the column names.")
    if column in frame.columns:
        return
    found = nearest(column, [str(name) for name in frame.columns], otherwise=remedy)
    problem = Problem(field=_FIELDS[role], value=column, remedy=found)
    raise ParameterError(f"{role} column '{column}' not found in input dataset columns.", [problem])


def nearest(column: str, names: Sequence[str], *, otherwise: str = "") -> str:
    """Return the remedy for a missing column."""
    near = difflib.get_close_matches(column, names, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise or "name one of the table's columns"


def check_known(names: Collection[str], columns: Collection[str]) -> None:
    """Raise :class:`ParameterError` with the columns that the config names but the table does not have."""
    problems = [
        Problem(field="reading.columns", value=name, remedy=nearest(name, list(columns)))
        for name in names
        if name not in columns
    ]
    if problems:
        raise ParameterError("The table lacks columns that the config names.", problems)


def check_no_nulls(frame: pd.DataFrame, column: str, *, role: str) -> None:
    """Raise :class:`DataError` if a column that must be complete has gaps."""
    gaps = frame.index[frame[column].isna()]
    if len(gaps) == 0:
        return
    missing = f"{counted(len(gaps), 'value')} {'is' if len(gaps) == 1 else 'are'} missing"
    remedy = f"{missing}, the first in row {gaps[0]}; remove or fill these rows"
    problem = Problem(field=_FIELDS[role], value=column, remedy=remedy)
    raise DataError(f"{role} column '{column}' has missing values. Please remove/replace them.", [problem])


def _check_flat(frame: pd.DataFrame, column: str, *, role: str) -> None:
    """Raise :class:`DataError` for a column whose cells cannot be compared with each other."""
    cells = frame[column]
    if cells.dtype == object and cells.map(pd.api.types.is_list_like).any():
        problem = Problem(
            field=_FIELDS[role],
            value=column,
            remedy="it holds lists or objects; take another column",
        )
        raise DataError(f"{role} column '{column}' cannot be compared.", [problem])


def check_named_roles(names: Sequence[str], config: SafeSynthesizerParameters) -> None:
    """Check that the group, order and unit columns exist in a private table; report all problems at once."""
    data = config.data
    roles = {
        "Group by": data.group_training_examples_by,
        "Order by": data.order_training_examples_by,
        "Unit": config.guarantee.unit_column,
    }
    missing = [
        Problem(field=_FIELDS[role], value=column, remedy=nearest(column, names))
        for role, column in roles.items()
        if column is not None and column not in names
    ]
    if missing:
        raise ParameterError("The table lacks columns that the config names.", missing)


def check_roles(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> None:
    """Check the group and order columns; report all problems at once."""
    found: list[UserError] = []
    checks = (
        (check_groupby_column, config.data.group_training_examples_by),
        (check_orderby_column, config.data.order_training_examples_by),
    )
    for check, column in checks:
        try:
            check(frame, column)
        except UserError as error:
            found.append(error)
    if found:
        message = " ".join(error.message for error in found)
        raise type(found[0])(message, [problem for error in found for problem in error.problems])


def check_columns(frame: pd.DataFrame) -> None:
    """Raise :class:`DataError` with every column that nothing can be learned from."""
    remedy = "the column holds nothing but nulls; fill it, or leave it out ({})"
    problems = [
        Problem(
            field=str(column),
            value=None,
            remedy=remedy.format(column_setting(str(column), ColumnReading.DROP)),
        )
        for column in frame.columns
        if frame[column].isna().all()
    ]
    if problems:
        raise DataError("The table has empty columns.", problems)


def check_rows(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> None:
    """Check the number of rows, as NSS does under the name ``dataset.size``."""
    if len(frame) >= MIN_ROWS or "dataset.size" in config.preflight.disabled_checks:
        return
    remedy = f"at least {MIN_ROWS} are needed; add rows, or list dataset.size under preflight.disabled_checks"
    raise DataError("The table is too small.", [Problem(field="rows", value=len(frame), remedy=remedy)])


def split_warnings(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> list[str]:
    """Return warnings about the training split: gaps, and few or often repeated rows (as NSS does)."""
    found = list(_gaps(frame, config.data.order_training_examples_by))
    if len(frame) < SMALL_ROWS:
        found.append(f"the training split has {counted(len(frame), 'row')}; more would help")
    wanted = config.training.num_input_records_to_sample
    if isinstance(wanted, int) and wanted > MANY_TIMES * len(frame):
        found.append(f"each of {len(frame)} rows is seen {wanted / len(frame):.1f} times")
    return found


def _gaps(frame: pd.DataFrame, order: str | None) -> Iterator[str]:
    for column in frame.columns:
        missing = int(frame[column].isna().sum())
        if missing == len(frame):
            yield f"{column}: nothing but nulls in the training split, of which nothing is learned"
        elif missing and column == order:
            yield f"{column}: {missing:,} values are missing; these records come last in their groups"
