"""A cell as bytes: what a file says in one place, before a type is asked for.

Its first byte tells how the file wrote it, the rest is its text in UTF-8. Equal cells are equal bytes and
different ones are not, so that a cell's bytes are all that its value and its record's identity depend on.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

MISSING = b""
"""No cell: a field or key that is not there, a null of the format. An empty text is another thing."""

MAX_DIGITS = 300
"""Longer numbers may pass the greatest double."""


class Kind(StrEnum):
    """How a cell was written."""

    FIELD = "~"
    """Between two separators of a CSV file: text that may stand for anything."""
    STRING = '"'
    NUMBER = "#"
    """Digits that count as they stand."""
    DECIMAL = "%"
    """Digits of a decimal type, which no conversion may round."""
    FLOAT = "."
    """A double, as the shortest digits that are read as the same double."""
    BOOLEAN = "?"
    MOMENT = "@"
    """A date, a time or both, in ISO 8601."""
    NESTED = "{"
    """A list or an object, as compact JSON."""


_KINDS = {ord(kind): kind for kind in Kind}


def cell(kind: Kind, text: str) -> bytes:
    """Bytes of a cell. A lone surrogate stays one, and is found when the cell is decoded."""
    return (kind + text).encode("utf-8", "surrogatepass")


def parted(cell: bytes) -> tuple[Kind, str]:
    """How a cell that is there was written, and its text; :class:`UnicodeDecodeError` where that is none."""
    return _KINDS[cell[0]], cell[1:].decode("utf-8")


def float_cell(number: float) -> bytes:
    """A finite double; whole ones below 2⁶³ without an exponent, so that they can be told to be whole."""
    whole = number.is_integer() and abs(number) < 2**63
    return cell(Kind.FLOAT, f"{int(number)}.0" if whole else repr(number))


_encode = json.JSONEncoder(ensure_ascii=False).encode


def quoted(text: str) -> str:
    """A text as JSON, byte for byte as pandas writes it into a record."""
    return _encode(text).replace("/", "\\/")


def compact(value: Any) -> str:
    """A value of :data:`DECODER` as compact JSON, in its own order and with its own digits."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(name)}:{compact(inner)}" for name, inner in value.items()) + "}"
    return {None: "null", True: "true", False: "false"}[value]


def _digits(token: str) -> bytes | None:
    """A JSON number as it stands, if a double can hold it."""
    if len(token) > MAX_DIGITS or "e" in token or "E" in token:
        return token.encode("ascii") if abs(float(token)) != float("inf") else None
    return token.encode("ascii")


DECODER = json.JSONDecoder(parse_int=_digits, parse_float=_digits, parse_constant=lambda _: None)
"""Numbers become the bytes of their digits; what is no finite number becomes null.

Of a key that an object repeats the last value counts, in the place of the first."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_INNERMOST = re.compile(r"\[\]|\{\}")
_NO_BRACKET = re.compile(r"[^\[\]{}]+")


def is_deeper(text: str, depth: int) -> bool:
    """Whether JSON nests deeper than this, or its brackets do not match; found without a recursion."""
    if text.count("[") + text.count("{") <= depth:
        return False
    brackets = _NO_BRACKET.sub("", _STRINGS.sub("", text))
    for _ in range(depth):
        brackets = _INNERMOST.sub("", brackets)
    return bool(brackets)
