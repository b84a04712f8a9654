"""The timestamps of a table: their format, and the times that they stand for."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from nss_train.config.sections.time_series import TimeSeriesParameters
from nss_train.errors import DataError, ParameterError, Problem

logger = logging.getLogger(__name__)

ELAPSED = "elapsed_seconds"
"""NSS's name for timestamps without a format: numbers of seconds."""
_GUESSED_FROM = 1000

_SEPARATORS = re.compile(r"([/.\- ,TZ+]+)")
_DATES = (
    *itertools.product(("%Y", "%y"), ("%m", "%b", "%B"), ("%d", "%a", "%A")),
    *itertools.product(("%m", "%b", "%B"), ("%d", "%a", "%A"), ("%Y", "%y")),
    *itertools.product(("%d", "%a", "%A"), ("%m", "%b", "%B"), ("%Y", "%y")),
)
"""Year first, then month first, then day first: the reference has no fixed order for ambiguous dates."""
_TIMES: tuple[tuple[str, ...], ...] = ((), ("%X",), ("%X", "%f"), ("%X", "%z"), ("%X", "%f", "%z"))
_OFFSET = re.compile(r"^(.*\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:?\d\d)$")


def guess_format(values: Sequence[str]) -> str | None:
    """Return the first format, in a fixed order, that parses all of the given values; otherwise ``None``."""
    if not values:
        return None
    return next((found for found in _candidates(values[0]) if _parses_all(found, values)), None)


def _candidates(text: str) -> Iterator[str]:
    offset = _OFFSET.match(text)
    body = offset.group(1) if offset else text
    parts = _SEPARATORS.split(body)
    components, separators = parts[::2], parts[1::2]
    tails = [t for t in _TIMES if len(t) - (t[-1:] == ("%z",)) == len(components) - 3]
    for date, tail in itertools.product(_DATES, tails):
        if (tail[-1:] == ("%z",)) != (offset is not None) or (tail and not date[0].lower().endswith("y")):
            continue
        directives = [*date, *(part for part in tail if part != "%z")]
        joined = "".join(itertools.chain(*itertools.zip_longest(directives, separators, fillvalue="")))
        yield joined + ("%z" if offset else "")


def _parses_all(found: str, values: Sequence[str]) -> bool:
    try:
        for value in values:
            datetime.strptime(value, found)  # noqa: DTZ007 (only whether it parses)
    except ValueError:
        return False
    return True


def read_times(column: pd.Series, config: TimeSeriesParameters) -> tuple[pd.Series, str]:
    """Return comparable times, and their format.

    Raises :class:`DataError` or :class:`ParameterError` for a column that cannot be read.
    """
    wanted = config.timestamp_format
    if wanted == ELAPSED or (wanted is None and pd.api.types.is_integer_dtype(column)):
        return _elapsed(column), ELAPSED
    written = wanted or _guess(column)
    if wanted is not None:
        _check_format(column, wanted)
    times = pd.to_datetime(column, format=written, errors="coerce")
    unparsed = column[times.isna()]
    if len(unparsed):
        source = "provided" if wanted else "inferred"
        message = f"Failed to parse {len(unparsed)} timestamp values using {source} format '{written}'."
        remedy = "does not follow the format; correct it, or set time_series.timestamp_format"
        shown = [
            Problem(field=f"row {row}", value=str(v), remedy=remedy) for row, v in unparsed.head(10).items()
        ]
        raise DataError(message, shown)
    return times, written


def _elapsed(column: pd.Series) -> pd.Series:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric and np.isfinite(column.to_numpy(dtype=float)).all():
        return column
    remedy = "elapsed seconds must be finite numbers; convert the column or give its timestamp_format"
    problem = Problem(field="time_series.timestamp_column", value=str(column.name), remedy=remedy)
    raise DataError(f"Timestamp column '{column.name}' does not hold elapsed seconds.", [problem])


def _guess(column: pd.Series) -> str:
    found = guess_format([str(value) for value in column.head(_GUESSED_FROM)])
    if found is not None:
        logger.info("timestamp_format=%s because it parses the first values of %s", found, column.name)
        return found
    remedy = f"the first value is {str(column.iloc[0])!r}; set it, such as '%Y-%m-%d %H:%M:%S' or {ELAPSED!r}"
    problem = Problem(field="time_series.timestamp_format", value=None, remedy=remedy)
    raise ParameterError(f"Could not infer timestamp format from column '{column.name}'.", [problem])


def _check_format(column: pd.Series, written: str) -> None:
    first = str(column.iloc[0])
    try:
        datetime.strptime(first, written)  # noqa: DTZ007 (only whether it parses)
    except ValueError as error:
        guess = guess_format([first])
        hint = f" Did you mean: '{guess}'?" if guess else ""
        remedy = f"the first timestamp is {first!r}.{hint}"
        problem = Problem(field="time_series.timestamp_format", value=written, remedy=remedy)
        message = f"Provided timestamp_format '{written}' does not match the data."
        raise ParameterError(message, [problem]) from error
