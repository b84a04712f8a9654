"""The marks that separate and quote the fields of a text file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from nss_train.config.sections.reading import ReadingParameters
from nss_train.data.reading.faults import contradicted, undecided
from nss_train.data.reading.text.dialect import Dialect, mark_name, open_text, records

MARKS = (",", ";", "\t", "|")
"""Usual delimiters; the comma comes first as the default."""
_SUSPECTS = (":", "^", "~", "\x1f", "\x01", " ")
"""Marks that separate fields too seldom to be assumed, but often enough to ask about."""
_WORDS = 2
"""Words in a name and in a cell up to which spaces are not suspected of separating fields."""
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_HEAD_CHARS = 2**16
_HEAD_ROWS = 200
_FIELD = "reading.delimiter"


def find_marks(path: Path, dialect: Dialect, reading: ReadingParameters) -> Dialect:
    """Return the dialect with the file's delimiter and quote; :class:`DataError` if they are ambiguous."""
    with open_text(path, dialect) as text:
        head = text.read(_HEAD_CHARS)
    dialect = replace(dialect, quote=reading.quote or dialect.quote)
    delimiter = _delimiter(path, head, dialect, reading.delimiter)
    dialect = replace(dialect, delimiter=delimiter)
    return dialect if reading.quote else replace(dialect, quote=_quote(head, dialect))


def _delimiter(path: Path, head: str, dialect: Dialect, declared: str | None) -> str:
    marks = dict.fromkeys((*MARKS, *([declared] if declared else [])))
    widths = {mark: _widths(head, replace(dialect, delimiter=mark)) for mark in marks}
    fitting = [mark for mark in marks if _fits(widths[mark])]
    if declared is not None:
        return _declared(declared, widths, fitting)
    if path.suffix.lower() == ".tsv" and "\t" in fitting:
        return "\t"
    if len(fitting) > 1:
        names = " or ".join(map(mark_name, fitting))
        remedy = f"header and rows fit together when separated by {names}; say which, such as `{_FIELD}: "
        raise undecided(path.name, _FIELD, f'{remedy}"{_escaped(fitting[0])}"`')
    if fitting:
        return fitting[0]
    likeliest = _likeliest(widths)
    if widths[likeliest][:1] == [1]:
        _check_one_column(path, head, dialect)
    return likeliest


def _check_one_column(path: Path, head: str, dialect: Dialect) -> None:
    """Raise an error for a single column in which each cell holds another mark equally often."""
    for mark in _SUSPECTS:
        widths = _widths(head, replace(dialect, delimiter=mark))
        if _fits(widths) and (mark != " " or widths[0] > _WORDS or _has_numbers(head)):
            remedy = (
                f"one column, unless fields are separated by {mark_name(mark)}: set {_FIELD} to {mark!r}, or"
                f" to ',' if it is one column"
            )
            raise undecided(path.name, _FIELD, remedy)
    words = [len(line.split()) for line in head.splitlines()[:_HEAD_ROWS] if line.strip()]
    if len(words) > 1 and words[0] > _WORDS and len(set(words)) == 1:
        remedy = (
            "one column, unless fields are separated by runs of spaces: write it with commas between them,"
        )
        raise undecided(path.name, _FIELD, f"{remedy} or set {_FIELD} to ',' if it is one column")


def _has_numbers(head: str) -> bool:
    """Tell whether some word is a number in each row and none in the header, so that it looks like a cell."""
    lines = [line.split() for line in head.splitlines()[:_HEAD_ROWS] if line.strip()]
    header, *rows = lines if len(head) < _HEAD_CHARS else lines[:-1]
    return all(len(line) == len(header) for line in rows) and any(
        not _NUMBER.fullmatch(name) and all(_NUMBER.fullmatch(cell) for cell in cells)
        for name, cells in zip(header, zip(*rows, strict=True), strict=True)
    )


def _declared(declared: str, widths: Mapping[str, list[int]], fitting: list[str]) -> str:
    if widths[declared][:1] == [1] and fitting:
        remedy = (
            f"the header holds no {mark_name(declared)}; the file is separated by {mark_name(fitting[0])}"
        )
        raise contradicted(_FIELD, _escaped(declared), remedy)
    return declared


def _likeliest(widths: Mapping[str, list[int]]) -> str:
    """Return the mark to report a misfit with, or the comma for a table of one column."""
    in_header = [mark for mark, found in widths.items() if found and found[0] > 1]
    if in_header:
        return max(in_header, key=lambda mark: widths[mark][0])
    # A title above the header is the only line without the mark.
    titled = [mark for mark, found in widths.items() if len(found) > 2 and _fits(found[1:])]
    return titled[0] if titled else MARKS[0]


def _widths(head: str, dialect: Dialect) -> list[int]:
    """Return the number of fields in each of the first records."""
    lines = list(io.StringIO(head, newline=""))
    if len(head) == _HEAD_CHARS and len(lines) > 2:
        lines.pop()  # it may be cut off
    try:
        return [len(row) for _, row in islice(records(iter(lines), dialect), _HEAD_ROWS)]
    except csv.Error:
        return []


def _fits(widths: list[int]) -> bool:
    return len(widths) > 1 and widths[0] > 1 and len(set(widths)) == 1


def _quote(head: str, dialect: Dialect) -> str:
    """Return the apostrophe if it surrounds every name of the header, else the dialect's quote."""
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE)
    try:
        names = next((row for row in reader if row), [])
    except csv.Error:
        return dialect.quote
    is_single = bool(names) and all(len(name) > 1 and name[0] == name[-1] == "'" for name in names)
    return "'" if is_single else dialect.quote


def _escaped(mark: str) -> str:
    return "\\t" if mark == "\t" else mark
