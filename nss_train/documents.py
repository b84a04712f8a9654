"""What a JSON or YAML document from outside may be: how deep, how large, of what values.

A document is measured before it is used, and a text before it is parsed: nesting alone ends a parser, a
serializer or a printer that works by recursion.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
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
    bare = _TEXTS.sub(b"", data)
    brackets = bare.translate(_ALIKE, _OTHERS)
    if bare.count(b",") + len(brackets) // 2 > NODES:
        raise ValueError(_TOO_MANY)
    for _ in range(DEPTH):
        brackets = brackets.replace(b"[]", b"")  # the innermost ones, all at once
    if brackets:
        raise ValueError(_TOO_DEEP)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON")


def faults(document: Any, *, text_chars: int = TEXT_CHARS) -> Iterator[str]:
    """What speaks against a document that is parsed already. Goes by levels, so that no depth ends it."""
    level = [document]
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                if len(value) > NAMES:
                    yield f"an object of more than {NAMES:,} names"
                    return
                yield from (why for name in value if (why := _fault(name, text_chars)))
                inner.extend(value.values())
            elif isinstance(value, list | tuple):
                inner.extend(value)
            elif why := _fault(value, text_chars):
                yield why
            if len(inner) > NODES:  # also where a YAML alias makes much of little
                yield _TOO_MANY
                return
        if not inner:
            return
        level = inner
    yield _TOO_DEEP


def _fault(value: Any, text_chars: int) -> str:
    """Why a single value is refused; empty when it is not."""
    if isinstance(value, str):
        return _text_fault(value, text_chars)
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if value.bit_length() <= INTEGER_BITS else f"a number of more than {INTEGER_BITS} bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "must be a finite number"
    return ""


def _text_fault(text: str, text_chars: int) -> str:
    if len(text) > text_chars:
        return f"a text of more than {text_chars:,} characters"
    return "" if is_unicode(text) else "a text with half a character (a lone surrogate)"


def is_unicode(text: str) -> bool:
    """Whether a text can be written at all: ``"\\ud800"`` is JSON, and no file can hold it."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
