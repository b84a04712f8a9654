"""JSON Lines, one object at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from nss_train.data.private.files.lines import Line
from nss_train.data.private.values.cells import DECODER, MISSING, Kind, cell, compact, is_deeper
from nss_train.data.private.values.coding import Fault

_BLANKS = " \t\r"
_BOM = "\ufeff"
"""Skipped before every record: if only the first line of the file could have one, a record would change when
the records before it are removed."""
_EMPTY = ("", "{}", "null")


def cells(line: Line, names: Sequence[str], depth: int) -> list[Hashable] | Fault:
    """Return the values of the named keys, or why the line is not a record. Other keys are ignored."""
    if line is None:
        return Fault.TOO_LONG
    try:
        text = line.decode("utf-8").lstrip(_BOM).strip(_BLANKS)
    except UnicodeDecodeError:
        return Fault.NOT_UTF8
    found = None if text in _EMPTY else _decoded(text, depth)
    if isinstance(found, dict):
        return [_hashable(found.get(name)) for name in names]
    return found or Fault.EMPTY


def keys(line: Line, depth: int) -> Iterator[str]:
    """Yield the keys of a line, if it is an object."""
    try:
        found = _decoded((line or b"").decode("utf-8").lstrip(_BOM), depth)
    except UnicodeDecodeError:
        return
    if isinstance(found, dict):
        yield from found


def _decoded(text: str, depth: int) -> dict[str, Any] | Fault:
    if is_deeper(text, depth):
        return Fault.TOO_DEEP
    try:
        found = DECODER.decode(text)
    except ValueError:
        return Fault.NOT_JSON
    return found if isinstance(found, dict) else Fault.NOT_OBJECT


def as_cell(value: Any) -> bytes:
    """Return a value that :func:`cells` found as the bytes of a cell."""
    if value is None:
        return MISSING
    if isinstance(value, tuple):
        return cell(Kind.NESTED, value[0])
    if isinstance(value, bytes):
        return Kind.NUMBER.encode() + value
    if isinstance(value, bool):
        return cell(Kind.BOOLEAN, compact(value))
    return cell(Kind.STRING, value)


def _hashable(value: object) -> Hashable:
    """Return a hashable value. Numbers are bytes, texts are not, so different values are never equal."""
    return (compact(value),) if isinstance(value, list | dict) else value
