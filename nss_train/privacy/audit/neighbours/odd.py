"""Odd contents of a single record that could affect the reading of a whole table."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import types

LONG = 100_000
"""Characters of a cell that exceeds any context."""
DEEP = 200
"""Levels of a nested value: more than any limit."""

TEXTS: Mapping[str, str] = {
    "gap": "",
    "blank": "  ",
    "other type": "unknown",
    "leading zeros": "00501",
    "many leading zeros": "0" * 5_000 + "7",
    "fraction": "33.5",
    "whole fraction": "63.0",
    "large integer": "9223372036854775808",
    "long integer": "123456789012345678901234567890",
    "exponent": "1e999",
    "long exponent": "1e-99999999999999999999",
    "not a number": "NaN",
    "infinity": "-inf",
    "marker of a gap": "NA",
    "boolean": "TRUE",
    "date": "2024-02-30",
    "date and time": "2024-02-29T12:00:00+02:00",
    "list": "[null]",
    "list of numbers": "[1, 2.5]",
    "object": '{"a": null}',
    "quotes": 'she said "no"',
    "comma": "a,b",
    "unicode": "Zoë \U0001f426 \u2028 \u0661",
    "formula": "=1+1",
    "long text": "word " * (LONG // 5),
    "long number": "7" * (LONG // 100),
    "deep list": "[" * DEEP + "]" * DEEP,
    "escaped surrogate": '"\\ud800"',
    "template": "{bos} <|im_end|> [SCHEMA]",
}
"""Odd text cells; in CSV every cell is text."""

RAW_CELLS: Mapping[str, bytes] = {
    "stray quote": b'"',
    "quote inside": b'a"b',
    "open quote": b'"open',
    "NUL": b"a\0b",
    "bad UTF-8": b"\xff\xfe\x80",
    "byte order mark": b"\xef\xbb\xbf1",
    "tab": b"a\tb",
    "form feed": b"a\x0cb",
    "next line": b"a\xc2\x85b",
}
"""Malformed cells of CSV."""

VALUES: Mapping[str, Any] = {
    "null": None,
    "integer": 7,
    "negative zero": -0.0,
    "number": 33.5,
    "true": True,
    "huge integer": 2**70,
    "list with null": [None],
    "empty list": [],
    "list of other": ["a", 1, None, {"k": 2.5}],
    "record": {"k": None, "new": 1},
}
"""Odd cells of JSON."""

RAW_JSON: Mapping[str, bytes] = {
    "bare NaN": b"NaN",
    "bare infinity": b"-Infinity",
    "bare exponent": b"1e999",
    "long exponent": b"1e-99999999999999999999",
    "lone surrogate": b'"\\ud800"',
    "escaped NUL": b'"\\u0000"',
    "raw NUL": b'"a\0b"',
    "bad UTF-8": b'"\xff\xfe"',
    "stray quote": b'"',
    "leading zeros": b"00501",
    "deep list": b"[" * DEEP + b"]" * DEEP,
    "deep nonsense": b"[" * 50 * DEEP,
}
"""Malformed cells of JSON."""

LINES: Mapping[str, bytes] = {
    "blank line": b"",
    "a list": b"[1, 2]",
    "a text": b'"hello"',
    "null record": b"null",
    "two objects": b"{} {}",
    "no JSON": b"hello",
    "the first bytes of gzip": b"\x1f\x8b\x08\x00",
}
"""Lines of a JSON Lines file that are not a single object."""

_DATES = datetime.date(9999, 12, 31), datetime.date(1, 1, 1)


def arrow_cells(kind: pa.DataType) -> Iterator[tuple[str, pa.Array]]:
    """Yield odd cells of an Arrow type, each as an array of one."""
    yield "gap", pa.nulls(1, kind)
    for name, value in _values(kind):
        try:
            yield name, pa.array([value], type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            # The type cannot hold it, so no file of this schema can.
            continue


def _values(kind: pa.DataType) -> Iterator[tuple[str, Any]]:
    if types.is_integer(kind):
        yield from {
            "zero": 0,
            "largest": 2 ** (kind.bit_width - 1) - 1,
            "least": -(2 ** (kind.bit_width - 1)),
        }.items()
    elif types.is_floating(kind):
        for name in ("nan", "inf", "-inf", "-0.0", "1e300", "5e-324", "63.0", "33.5"):
            yield name, float(name)
    elif types.is_boolean(kind):
        yield "true", True
    elif types.is_decimal(kind):
        yield "decimal", decimal.Decimal(7)
    elif types.is_temporal(kind):
        yield from (("late", _DATES[0]), ("early", _DATES[1]), ("epoch", 0), ("far", 2**62))
    elif types.is_nested(kind):
        yield from {"empty": [], "list with null": [None], "record": {}, "gap inside": {"k": None}}.items()
    else:
        yield from TEXTS.items()
