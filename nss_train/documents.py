"""What a JSON or YAML document from outside may be: how deep, how large, of what values.

A document is measured before it is used, and a text before it is parsed: nesting alone ends a parser, a
serializer or a printer that works by recursion.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NoReturn

DEPTH = 32
"""Nested lists and objects. An NSS config has six; Python's pickle ends at about 480."""
NODES = 50_000
"""Values. 4,000 declared columns with all of their fields are 40,000."""
NAMES = 5_000
"""Names of one object; a table has 4,000 columns at most unless its operator allows more."""
TEXT_CHARS = 16_384
"""Characters of one text or name."""
INTEGER_BITS = 64
"""Of a whole number, in the documents of which none has more than 53."""

_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""JSON's texts. One that does not end takes all the rest with it, where a parser would stop, too."""
_QUOTES = 8
"""Of each value: two of its name, two of itself, and as many within its text."""
_SINGLE = {str, int, float, bool, type(None)}
_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_TOO_DEEP = f"nested more than {DEPTH} deep"
_TOO_MANY = f"more than {NODES:,} values"


def parse(data: bytes, *, text_chars: int = TEXT_CHARS) -> Any:
    """What a JSON text says, if it is a small one; else ``ValueError`` says why not, and quotes nothing."""
    _measure(data)
    found = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    why = next(faults(found, text_chars=text_chars), None)
    if why is not None:
        raise ValueError(why)
    return found


def _measure(data: bytes) -> None:
    """Raise ``ValueError`` for a text that is too deep or says too much, at the price of a few scans."""
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


def faults(document: Any, *, text_chars: int = TEXT_CHARS) -> Iterator[str]:
    """What speaks against a document that is parsed already. Goes by levels, so that no depth ends it.

    A level is checked as a whole, because an honest document has few kinds of values and a hostile one many
    values.
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
        if sum(map(len, nested)) > NODES:  # also where a YAML alias makes much of little
            yield _TOO_MANY
            return
        level = [value for one in nested for value in (one.values() if isinstance(one, Mapping) else one)]
        if not level:
            return
    yield _TOO_DEEP


def _faults_of_values(values: list[Any], text_chars: int) -> Iterator[str]:
    """Why single values are refused, each reason once."""
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
    """Whether a text can be written at all: ``"\\ud800"`` is JSON, and no file can hold it."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
