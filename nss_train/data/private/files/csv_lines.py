"""CSV, one record at a time: no byte of one record affects how another one is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nss_train.data.private.files.lines import Line, lines, quoted_lines
from nss_train.data.private.values.cells import MISSING, Kind
from nss_train.data.private.values.coding import Fault
from nss_train.errors import DataError, Problem

_SEPARATORS = b", \t"
_OTHER_MARKS = {";": "semicolon", "\t": "tab", "|": "pipe"}
_QUOTED = re.compile(rb'"((?:[^"]++|"")*+)"(,|\Z)', re.DOTALL)
_BARE = re.compile(rb'([^",]*+)(,|\Z)', re.DOTALL)


def records(path: Path, *, multiline: bool) -> Iterator[Line]:
    """Return an iterator over the header's line and each record's."""
    return quoted_lines(path) if multiline else lines(path)


def header(line: Line, name: str) -> list[str]:
    """Return the names of a file's first line; raise :class:`DataError` if they cannot be read."""
    if line is None or b"\0" in line:
        raise _no_header(name, "the header is no text; export the table as UTF-8 CSV")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_header(name, "the header is not UTF-8 text; convert the file") from error
    if not text.strip():
        raise _no_header(name, "the first line is empty; it must name the columns")
    found = fields(line)
    if isinstance(found, Fault):
        raise _no_header(name, f"the header has {found}")
    if len(found) == 1 and (mark := next((mark for mark in _OTHER_MARKS if mark in text), None)):
        remedy = (
            f"the header holds no comma but a {_OTHER_MARKS[mark]}; a private job reads commas: convert it"
        )
        raise _no_header(name, remedy)
    return [field.decode("utf-8") for field in found]


def fields(line: Line) -> list[bytes] | Fault:
    """Return the fields of a line by RFC 4180, or what is wrong with it."""
    if line is None:
        return Fault.TOO_LONG
    if b'"' not in line:
        return line.split(b",")
    found, position = [], 0
    while True:
        is_quoted = line[position : position + 1] == b'"'
        match = (_QUOTED if is_quoted else _BARE).match(line, position)
        if match is None:
            return _quote_fault(line, position, is_quoted=is_quoted)
        found.append(match[1].replace(b'""', b'"') if is_quoted else match[1])
        position = match.end()
        if not match[2]:
            return found


def cells(line: Line, width: int) -> list[bytes] | Fault:
    """Return at most ``width`` fields of a record; fields that are missing at its end are left out."""
    if line is not None and not line.strip(_SEPARATORS):
        return Fault.EMPTY
    found = fields(line)
    return Fault.SURPLUS if not isinstance(found, Fault) and len(found) > width else found


def as_cell(field: bytes | None) -> bytes:
    """Return a field as the bytes of a cell; ``None`` is a missing field."""
    return MISSING if field is None else Kind.FIELD.encode() + field


def _quote_fault(line: bytes, position: int, *, is_quoted: bool) -> Fault:
    closed = re.compile(rb'"(?:[^"]++|"")*+"').match(line, position) if is_quoted else True
    return Fault.STRAY_QUOTE if closed else Fault.OPEN_QUOTE


def _no_header(name: str, remedy: str) -> DataError:
    return DataError("The table cannot be read.", [Problem(field="table", value=name, remedy=remedy)])
