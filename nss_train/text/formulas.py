"""The guard against cells that a spreadsheet would run as formulas (OWASP: CSV injection).

defusedcsv lets through what begins with a tab, a line break or a full-width sign, and alters +2.5 and -1e5.
"""

from __future__ import annotations

from typing import Any

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters of a formula, also after a tab or a line break, and in full-width forms."""


def defused(value: object) -> Any:
    """Return the same cell, with an apostrophe before a text that a spreadsheet would take for a formula."""
    is_formula = isinstance(value, str) and value.startswith(_STARTS) and not _is_number(value)
    return f"'{value}" if is_formula else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()
