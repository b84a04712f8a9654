"""The measures of a table, and the limits that it exceeds."""

from __future__ import annotations

from dataclasses import dataclass

from nss_train.contract import TableLimits

BYTES_PER_CELL = 8
"""Bytes of a number, or of a reference to a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The measures of a table; ``rows`` of a CSV file counts its lines, quoted line breaks included."""

    file_bytes: int
    rows: int
    columns: int
    decoded_bytes: int
    cell_chars: int = 0
    depth: int = 0


def passed(size: Size, limits: TableLimits) -> dict[str, int]:
    """Return the limits that a table exceeds, each with the measured value."""
    names = ("rows", "columns", "decoded_bytes", "cell_chars", "depth")
    found = {name: getattr(size, name) for name in names if getattr(size, name) > getattr(limits, name)}
    expansion = size.decoded_bytes // max(1, size.file_bytes)
    if size.decoded_bytes > limits.small_bytes and expansion > limits.expansion:
        found["expansion"] = expansion
    return found
