"""The errors for files that are not tables."""

from __future__ import annotations

import pyarrow as pa

from nss_train.errors import DataError, Problem

DAMAGED = (pa.ArrowException, OSError, AttributeError, LookupError, TypeError, ValueError)
"""Errors that Arrow and pandas raise for a file whose contents or metadata are damaged."""


def problem(name: str, remedy: str) -> Problem:
    """Return a problem with a file as a whole."""
    return Problem(field="table", value=name, remedy=remedy)


def unreadable(name: str, remedy: str) -> DataError:
    """Return the error for a file that is not what its name says, or cannot be read."""
    return DataError("The table cannot be read.", [problem(name, remedy)])


def undecided(name: str, field: str, remedy: str) -> DataError:
    """Return the error for a file that could be read in several ways; ``field`` of the config decides."""
    return DataError(
        "The table can be read in several ways.", [Problem(field=field, value=name, remedy=remedy)]
    )


def contradicted(field: str, value: str, remedy: str) -> DataError:
    """Return the error for a file that contradicts the config."""
    return DataError(
        "The config says what the table is not.", [Problem(field=field, value=value, remedy=remedy)]
    )
