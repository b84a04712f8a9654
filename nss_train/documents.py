"""Limits of JSON and YAML documents from outside: depth, size and kinds of values.

A document is measured before it is used, and a text before it is parsed: nesting alone crashes a recursive
parser, serializer or printer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NoReturn

DEPTH = 32
"""Most levels of nested lists and objects. An NSS config has six; Python's pickle fails at about 480."""
NODES = 50_000
"""Most values of a document. 4,000 declared columns with all of their fields are 40,000."""
NAMES = 5_000
"""Most names of one object; a table has at most 4,000 columns unless the operator allows more."""
TEXT_CHARS = 16_384
"""Most characters of one text or name."""
INTEGER_BITS = 64
"""Most bits of a whole number; legitimate documents use at most 53."""

_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""JSON's texts. An unterminated one matches all the rest, where a parser would stop, too."""
_QUOTES = 8
"""Most quotes per value: two of its name, two of its own, and as many within its text."""
_SINGLE = {str, int, float, bool, type(None)}
_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_TOO_DEEP = f"nested more than {DEPTH} deep"
_TOO_MANY = f"more than {NODES:,} values"


def parse(data: bytes, *, text_chars: int = TEXT_CHARS) -> Any:
    """Return the value of a small JSON text; raise a ``ValueError`` that quotes nothing of any other."""
    _measure(data)
    found = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    why = next(faults(found, text_chars=text_chars), None)
    if why is not None:
        raise ValueError(why)
    return found


def _measure(data: bytes) -> None:
    """Raise ``ValueError`` for a text that is too deep or has too many values, after a few scans."""
    if data.count(b'"') > _QUOTES * NODES:
        raise ValueError(_TOO_MANY)
    bare = _without_texts(data)
    commas = bare.count(b",")
    brackets = b"" if commas > NODES else bare.translate(_ALIKE, _OTHERS)
    if commas + len(brackets) // 2 > NODES:
        raise ValueError(_TOO_MANY)
    for _ in range(DEPTH):
        brackets = brackets.replace(b"[]", b"")  # the innermost ones, all at once
    if brackets:
        raise ValueError(_TOO_DEEP)


def _without_texts(data: bytes) -> bytes:
    if b"\\" in data:
        return _TEXTS.sub(b"", data)
    return b"".join(data.split(b'"')[::2])  # no quote is escaped: the same, thirty times as fast


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON")


def faults(document: object, *, text_chars: int = TEXT_CHARS) -> Iterator[str]:
    """Yield what is wrong with a parsed document. It goes level by level, so that depth cannot crash it.

    A level is checked as a whole, because an honest document has few kinds of values and a hostile one has
    many values.
    """
    level = [document]
    for _ in range(DEPTH + 1):
        nested = [
            one for one in level if type(one) not in _SINGLE and isinstance(one, list | tuple | Mapping)
        ]
        objects = [one for one in nested if isinstance(one, Mapping)]
        if any(len(one) > NAMES for one in objects):
            yield f"an object of more than {NAMES:,} names"
            return
        yield from _faults_of_values([*level, *chain.from_iterable(objects)], text_chars)
        if sum(map(len, nested)) > NODES:  # also where YAML aliases repeat a value many times
            yield _TOO_MANY
            return
        level = [value for one in nested for value in (one.values() if isinstance(one, Mapping) else one)]
        if not level:
            return
    yield _TOO_DEEP


def _faults_of_values(values: list[Any], text_chars: int) -> Iterator[str]:
    """Yield why single values are refused, each reason once."""
    texts = [value for value in values if isinstance(value, str)]
    if max(map(len, texts), default=0) > text_chars:
        yield f"a text of more than {text_chars:,} characters"
    if not is_unicode("".join(texts)):
        yield "a text with half a character (a lone surrogate)"
    if any(isinstance(value, int) and value.bit_length() > INTEGER_BITS for value in values):
        yield f"a number of more than {INTEGER_BITS} bits"
    if not all(math.isfinite(value) for value in values if isinstance(value, float)):
        yield "must be a finite number"


def is_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: ``"\\ud800"`` is valid JSON, but no file can hold it."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
