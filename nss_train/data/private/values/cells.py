"""A cell as bytes: the content of one place of a file, before any type applies.

Its first byte gives the way in which the file wrote it, the rest is its text in UTF-8. Equal cells are equal
bytes and different cells are not, so a cell's value and its record's identity depend on its bytes alone.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

import numpy as np

MISSING = b""
"""Missing cell: an absent field or key, or the format's null. An empty text is not missing."""

MAX_DIGITS = 300
"""Most digits of a number; longer ones may exceed the greatest double."""


class Kind(StrEnum):
    """The way in which a cell was written."""

    FIELD = "~"
    """Text between two separators of a CSV file, which may be of any type."""
    STRING = '"'
    NUMBER = "#"
    """Digits whose exact text counts."""
    DECIMAL = "%"
    """Digits of a decimal type, which no conversion may round."""
    FLOAT = "."
    """A double, as the shortest digits that parse as the same double."""
    BOOLEAN = "?"
    MOMENT = "@"
    """A date, a time or both, in ISO 8601."""
    NESTED = "{"
    """A list or an object, as compact JSON."""


_KINDS = {ord(kind): kind for kind in Kind}


def cell(kind: Kind, text: str) -> bytes:
    """Return the bytes of a cell. A lone surrogate is kept, and is found when the cell is decoded."""
    return (kind + text).encode("utf-8", "surrogatepass")


def parted(cell: bytes) -> tuple[Kind, str]:
    """Return the kind and text of a cell; raise :class:`UnicodeDecodeError` if it is not UTF-8."""
    return _KINDS[cell[0]], cell[1:].decode("utf-8")


def float_cell(number: float) -> bytes:
    """Return a finite double as a cell; whole ones below 2⁶³ have no exponent, to be recognized."""
    whole = number.is_integer() and abs(number) < 2**63
    return cell(Kind.FLOAT, f"{int(number)}.0" if whole else repr(number))


_encode = json.JSONEncoder(ensure_ascii=False).encode


def quoted(text: str) -> str:
    """Return a text as JSON, byte for byte as pandas writes it into a record."""
    return _encode(text).replace("/", "\\/")


def compact(value: Any) -> str:
    """Return a value of :data:`DECODER` as compact JSON, with its own order and digits."""
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
    """Return the digits of a JSON number unchanged, if a double can hold it."""
    if len(token) > MAX_DIGITS or "e" in token or "E" in token:
        return token.encode("ascii") if abs(float(token)) != float("inf") else None
    return token.encode("ascii")


DECODER = json.JSONDecoder(parse_int=_digits, parse_float=_digits, parse_constant=lambda _: None)
"""JSON decoder: numbers become the bytes of their digits, non-finite numbers become null.

If an object repeats a key, its last value counts, in the place of the first."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")


def is_deeper(text: str, depth: int) -> bool:
    """Tell, without recursion, whether JSON nests deeper than this or has another number of ends than of
    beginnings. Pairs of two kinds are left to the decoder, which no deeper nesting can end."""
    if text.count("[") + text.count("{") <= depth:
        return False
    brackets = _NO_BRACKET.sub("", _STRINGS.sub("", text)).encode("ascii")
    # In one pass: a record of 64 MiB of brackets must not take minutes.
    opening = np.isin(np.frombuffer(brackets, dtype=np.uint8), np.frombuffer(b"[{", dtype=np.uint8))
    levels = np.cumsum(np.where(opening, 1, -1), dtype=np.int64)
    return len(levels) > 0 and bool(levels.max() > depth or levels.min() < 0 or levels[-1] != 0)
