"""The ``reading`` section: how the table's file is read. NSS has no such section."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import yaml
from pydantic import Field, model_validator

from nss_train.config.bounds import MOST_COLUMNS, AtMost, Name, Word
from nss_train.config.sections.section import Section
from nss_train.config.yaml_text import parse_yaml

_COLUMNS = AtMost(MOST_COLUMNS, "as many as a table may have")
_Mark = Annotated[str, Field(min_length=1), AtMost(1, "it is a single mark")]


class Types(StrEnum):
    """The way in which cells become values."""

    NSS = "nss"
    """Values as NSS reads them: a column's type is inferred from all of its cells."""
    FAITHFUL = "faithful"
    """Values as they are written."""


class ColumnReading(StrEnum):
    """The way in which one column is read, whatever ``types`` says about the others."""

    TEXT = "text"
    DROP = "drop"
    """The column is left out. The key of a column without a name is the empty string."""


def column_setting(column: str, how: ColumnReading) -> str:
    """Return the config line for one column, with the name in quotes where YAML needs them."""
    try:
        is_plain = parse_yaml(f"{{{column}: {how}}}") == {column: how.value}
    except yaml.YAMLError:
        is_plain = False
    name = column if is_plain else json.dumps(column, ensure_ascii=False)
    return f"reading.columns: {{{name}: {how}}}"


def as_written(column: str) -> str:
    """Return the remedy that reads a column as it is written."""
    as_text = column_setting(column, ColumnReading.TEXT)
    return f"To keep it as it is written, set reading.types: faithful, or {as_text}"


class ReadingParameters(Section):
    """The settings for reading the file. An absent one is detected, or requested if it is ambiguous."""

    types: Types | None = None
    """``None`` reads like ``nss``, but refuses columns that would lose distinct values."""
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
        """Return the columns that are read as text."""
        return tuple(name for name, how in self.columns.items() if how is ColumnReading.TEXT)

    @property
    def dropped(self) -> frozenset[str]:
        """Return the columns that are left out."""
        return frozenset(name for name, how in self.columns.items() if how is ColumnReading.DROP)

    def marks(self) -> dict[str, str]:
        """Return what the config declares about a text file: its marks and its encoding."""
        names = ("delimiter", "decimal", "thousands", "quote", "encoding")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
