"""Numbers of things in words: ``1 row``, ``2,000 rows``."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return a number with the name of what it counts, which has a regular plural."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
