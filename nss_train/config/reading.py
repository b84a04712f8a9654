"""The ``reading`` section: how the table's file is read. NSS does not know it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from nss_train.config.bounds import MOST_COLUMNS, AtMost, Name, Word
from nss_train.config.section import Section

_COLUMNS = AtMost(MOST_COLUMNS, "as many as a table may have")
_Mark = Annotated[str, Field(min_length=1, max_length=1)]


class Types(StrEnum):
    """How cells become values."""

    NSS = "nss"
    """As NSS reads them: a column's type is guessed from all of its cells."""
    FAITHFUL = "faithful"
    """As they are written."""


class ColumnReading(StrEnum):
    """How one column is read, whatever ``types`` says of the others."""

    TEXT = "text"


class ReadingParameters(Section):
    """What is not given is found in the file, or refused where it could be several things."""

    types: Types | None = None
    """``None`` reads like ``nss`` and refuses columns that would lose distinct values by it."""
    columns: Annotated[dict[Name, ColumnReading], _COLUMNS] = Field(default_factory=dict)
    delimiter: _Mark | None = None
    decimal: _Mark | None = None
    thousands: _Mark | None = None
    quote: _Mark | None = None
    encoding: Word | None = None
