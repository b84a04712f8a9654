"""How a column of timestamps is written, guessed from its values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import datetime

_SEPARATORS = re.compile(r"([/.\- ,TZ+]+)")
_DATES = (
    *itertools.product(("%Y", "%y"), ("%m", "%b", "%B"), ("%d", "%a", "%A")),
    *itertools.product(("%m", "%b", "%B"), ("%d", "%a", "%A"), ("%Y", "%y")),
    *itertools.product(("%d", "%a", "%A"), ("%m", "%b", "%B"), ("%Y", "%y")),
)
"""Year first, then month first, then day first: the reference has no fixed order for ambiguous dates."""
_TIMES: tuple[tuple[str, ...], ...] = ((), ("%X",), ("%X", "%f"), ("%X", "%z"), ("%X", "%f", "%z"))
_OFFSET = re.compile(r"^(.*\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:?\d\d)$")


def guess_format(values: Sequence[str]) -> str | None:
    """The first format, in a fixed order, that parses every one of a few values; ``None`` if none does."""
    if not values:
        return None
    return next((found for found in _candidates(values[0]) if _parses_all(found, values)), None)


def _candidates(text: str) -> Iterator[str]:
    offset = _OFFSET.match(text)
    body = offset.group(1) if offset else text
    parts = _SEPARATORS.split(body)
    components, separators = parts[::2], parts[1::2]
    tails = [t for t in _TIMES if len(t) - (t[-1:] == ("%z",)) == len(components) - 3]
    for date, tail in itertools.product(_DATES, tails):
        if (tail[-1:] == ("%z",)) != (offset is not None) or (tail and not date[0].lower().endswith("y")):
            continue
        directives = [*date, *(part for part in tail if part != "%z")]
        joined = "".join(itertools.chain(*itertools.zip_longest(directives, separators, fillvalue="")))
        yield joined + ("%z" if offset else "")


def _parses_all(found: str, values: Sequence[str]) -> bool:
    try:
        for value in values:
            datetime.strptime(value, found)  # noqa: DTZ007 (only whether it parses)
    except ValueError:
        return False
    return True
