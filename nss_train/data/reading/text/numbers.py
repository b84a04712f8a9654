"""Numbers that are written with other marks than a point, such as ``83,5`` and ``6.226,70``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nss_train.config.sections.reading import ColumnReading, ReadingParameters, column_setting
from nss_train.data.reading.faults import contradicted
from nss_train.data.reading.text.dialect import Dialect, mark_name, text_chunks
from nss_train.data.reading.text.rows import own_name
from nss_train.errors import DataError, Problem
from nss_train.formats import MARKERS

_FIELD = "reading.decimal"
_OTHERS = {",": ".", ".": ","}
Marks = tuple[str, str | None]
"""Decimal mark and thousands mark."""


@dataclass(kw_only=True, slots=True)
class _Column:
    """The readings that all cells of a column have in common."""

    readings: set[Marks]
    """Marks under which each cell seen so far is a number."""
    is_number: bool = True
    """Whether each cell is a number under some reading."""
    marked: bool = False
    """Whether a cell holds a mark, so that the choice of reading matters."""
    example: str = ""

    def add(self, cells: Iterable[str], patterns: Mapping[Marks, re.Pattern[str]]) -> None:
        """Narrow the readings down by more cells."""
        if not self.is_number:
            return
        for cell in cells:
            fitting = {marks for marks, pattern in patterns.items() if pattern.fullmatch(cell)}
            self.is_number = bool(fitting)
            if not fitting:
                return
            self.readings &= fitting
            if not cell.lstrip("+-").isdigit():
                self.marked, self.example = True, self.example or cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """Columns whose numbers pandas would read as text, and their marks."""

    marks: Marks = (".", None)
    columns: tuple[str, ...] = field(default=())

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with the numbers in place of the texts of these columns."""
        return frame.assign(**{name: self._numbers(frame[name]) for name in self.columns})

    def _numbers(self, texts: pd.Series[Any]) -> pd.Series[Any]:
        decimal, thousands = self.marks
        for mark in (thousands,) if thousands else ():
            texts = texts.str.replace(mark, "", regex=False)
        plain = texts.str.replace(decimal, ".", regex=False).str.strip()
        try:
            return pd.to_numeric(plain)
        except ValueError:
            return plain.astype("float64")  # beyond the greatest double: infinite, as in a plain table


def find_numbers(path: Path, dialect: Dialect, reading: ReadingParameters) -> tuple[Dialect, Numbers]:
    """Return the dialect with the marks of the file's numbers; :class:`DataError` if they are ambiguous.

    In a comma-separated file, numbers have points, as in NSS, unless the config says otherwise.
    """
    declared = reading.decimal is not None or reading.thousands is not None
    if dialect.delimiter == "," and not declared:
        return dialect, Numbers()
    columns = _columns(path, dialect, _candidates(reading), reading)
    marks = _declared(columns, reading) if declared else _found(columns, dialect)
    decimal, thousands = marks
    texts = tuple(name for name, column in columns.items() if column.marked and marks in column.readings)
    used = marks != (".", None) and bool(texts)
    dialect = replace(dialect, decimal=decimal, thousands=thousands) if used or declared else dialect
    return dialect, Numbers(marks=marks, columns=texts if used else ())


def _candidates(reading: ReadingParameters) -> list[Marks]:
    """Return the possible marks in order of preference: unless declared, those without thousands first."""
    if reading.decimal is None and reading.thousands is None:
        return [(".", None), (",", None), (".", ","), (",", ".")]
    decimal = reading.decimal or _OTHERS.get(reading.thousands or "", ".")
    other = (_OTHERS.get(decimal, "."), None)
    return [(decimal, reading.thousands), *([other] if other[0] != reading.thousands else [])]


def _columns(
    path: Path, dialect: Dialect, candidates: list[Marks], reading: ReadingParameters
) -> dict[str, _Column]:
    """Return the columns of numbers."""
    patterns = {marks: _pattern(*marks) for marks in candidates}
    columns: dict[str, _Column] = {}
    for chunk in text_chunks(path, dialect):
        for name, cells in chunk.items():
            column = columns.setdefault(name, _Column(readings=set(candidates)))
            different = dict.fromkeys(cell.strip() for cell in cells)
            column.add((cell for cell in different if cell not in MARKERS), patterns)
    return {
        name: column
        for name, column in columns.items()
        if column.is_number and column.marked and own_name(name) not in reading.columns
    }


def _pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    grouped = rf"[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+|" if thousands else ""
    mark = re.escape(decimal)
    return re.compile(rf"[+-]?(?:(?:{grouped}\d+)(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _declared(columns: Mapping[str, _Column], reading: ReadingParameters) -> Marks:
    marks = _candidates(reading)[0]
    wrong = [(name, column) for name, column in columns.items() if marks not in column.readings]
    for name, column in wrong[:1]:
        remedy = (
            f"column {name} holds {column.example}, which is no number with decimal {mark_name(marks[0])}"
            + (f" and thousands {mark_name(marks[1])}" if marks[1] else "")
            + f"; correct it, or read the column as text ({column_setting(name, ColumnReading.TEXT)})"
        )
        raise contradicted(_FIELD if reading.decimal else "reading.thousands", marks[0], remedy)
    return marks


def _found(columns: Mapping[str, _Column], dialect: Dialect) -> Marks:
    """Return the only decimal mark under which all columns of numbers are numbers."""
    if not columns:
        return Numbers().marks
    readings = [column.readings for column in columns.values()]
    fitting = [marks for marks in _candidates(ReadingParameters()) if all(marks in one for one in readings)]
    if len({decimal for decimal, _ in fitting}) != 1:
        problems = _undecided(columns, mark_name(dialect.delimiter))
        raise DataError("The table can be read in several ways.", problems)
    return fitting[0]


def _undecided(columns: Mapping[str, _Column], separator: str) -> Iterator[Problem]:
    remedy = (
        f"fields are separated by a {separator}, so that a comma or a point may be the decimal mark: set"
        " reading.decimal (and reading.thousands where numbers have such marks), or read the column as text:"
        " %s"
    )
    # A column whose own cells disagree comes first.
    for name, column in sorted(columns.items(), key=lambda item: len(item[1].readings)):
        yield Problem(
            field=_FIELD,
            value=f"{name}: {column.example}",
            remedy=remedy % column_setting(name, ColumnReading.TEXT),
        )
