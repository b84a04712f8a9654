"""A table's measures, and the limits that it passes."""

from __future__ import annotations

from dataclasses import dataclass

from nss_train.contract import TableLimits

BYTES_PER_CELL = 8
"""Of a number, or of the reference to a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A table's measures; ``rows`` of a CSV file counts its lines, quoted line breaks included."""

    file_bytes: int
    rows: int
    columns: int
    decoded_bytes: int
    cell_chars: int = 0
    depth: int = 0


def passed(size: Size, limits: TableLimits) -> dict[str, int]:
    """The limits that a table passes, each with the measure that passes it."""
    names = ("rows", "columns", "decoded_bytes", "cell_chars", "depth")
    found = {name: getattr(size, name) for name in names if getattr(size, name) > getattr(limits, name)}
    expansion = size.decoded_bytes // max(1, size.file_bytes)
    if size.decoded_bytes > limits.small_bytes and expansion > limits.expansion:
        found["expansion"] = expansion
    return found
