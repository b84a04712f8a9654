"""The ``reading`` section: how the table's file is read. NSS does not know it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import yaml
from pydantic import Field, model_validator

from nss_train.config.bounds import MOST_COLUMNS, AtMost, Name, Word
from nss_train.config.section import Section

_COLUMNS = AtMost(MOST_COLUMNS, "as many as a table may have")
_Mark = Annotated[str, Field(min_length=1), AtMost(1, "it is a single mark")]


class Types(StrEnum):
    """How cells become values."""

    NSS = "nss"
    """As NSS reads them: a column's type is guessed from all of its cells."""
    FAITHFUL = "faithful"
    """As they are written."""


class ColumnReading(StrEnum):
    """How one column is read, whatever ``types`` says of the others."""

    TEXT = "text"
    DROP = "drop"
    """It is left out. The name of a column without one is empty."""


def column_setting(column: str, how: ColumnReading) -> str:
    """What a person writes into the config for one column, its name in quotes where YAML needs them."""
    try:
        is_plain = yaml.safe_load(f"{{{column}: {how}}}") == {column: how.value}
    except (yaml.YAMLError, ValueError):  # ValueError: a date that there is not
        is_plain = False
    name = column if is_plain else json.dumps(column, ensure_ascii=False)
    return f"reading.columns: {{{name}: {how}}}"


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

    @model_validator(mode="after")
    def _marks_differ(self) -> ReadingParameters:
        given = [mark for name, mark in self.marks().items() if name != "encoding"]
        if len(given) != len(set(given)):
            raise ValueError("delimiter, decimal, thousands and quote must differ")
        if any(mark.isalnum() or mark in "\r\n\0" for mark in given):
            raise ValueError(
                "delimiter, decimal, thousands and quote cannot be letters, digits or line breaks"
            )
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that are read as text."""
        return tuple(name for name, how in self.columns.items() if how is ColumnReading.TEXT)

    @property
    def dropped(self) -> frozenset[str]:
        """Columns that are left out."""
        return frozenset(name for name, how in self.columns.items() if how is ColumnReading.DROP)

    def marks(self) -> dict[str, str]:
        """What is declared of a text file."""
        names = ("delimiter", "decimal", "thousands", "quote", "encoding")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
