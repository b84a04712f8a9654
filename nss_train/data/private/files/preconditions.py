"""The preconditions on a file before its records are read. A refusal reveals only the operator's limit.

The guarantee assumes these preconditions about the file; it does not protect whether they hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from nss_train.contract import TableLimits
from nss_train.data.limits import parquet_size
from nss_train.data.sizes import BYTES_PER_CELL, Size, passed
from nss_train.errors import DataError, ParameterError, Problem
from nss_train.formats import PACKED, PACKED_BYTES, PRIVATE, PRIVATE_ONLY

_JSON_LINES = (".jsonl", ".json")
_PUBLIC = ("rows", "columns")
_OF_A_RECORD = ("cell_chars", "depth")
"""Limits of single records: a record that exceeds one has no effect, and the table is read."""


def check_file(path: Path, limits: TableLimits | None) -> None:
    """Raise :class:`DataError` for a file that is not a table or is too large to be decoded.

    An empty JSON Lines file is a table without records, as it remains when its last unit is removed.
    """
    if not path.is_file():
        raise unreadable(path.name, "no such file")
    if path.stat().st_size == 0 and path.suffix.lower() not in _JSON_LINES:
        raise unreadable(path.name, "the file is empty; a table needs columns and rows")
    if path.suffix.lower() not in PRIVATE:
        raise unreadable(path.name, PRIVATE_ONLY)
    # The first bytes of JSON Lines are a record's, which must not decide whether the others are trained.
    if path.suffix.lower() not in _JSON_LINES:
        with path.open("rb") as file:
            if file.read(PACKED_BYTES).startswith(PACKED):
                raise unreadable(path.name, "the file is compressed; unpack it first")
    if limits is not None:
        refuse(_too_large(path, limits))


def refuse(problems: Iterable[Problem]) -> None:
    """Raise all problems as one error: the config's if one of them is the config's, otherwise the table's."""
    found = list(problems)
    if any(problem.field.startswith("guarantee") for problem in found):
        raise ParameterError("Table and config do not fit for a private training.", found)
    if found:
        raise DataError("The table is refused.", found)


def unreadable(name: str, remedy: str) -> DataError:
    """Return the error for a file that is not what its name says."""
    return DataError("The table cannot be read.", [Problem(field="table", value=name, remedy=remedy)])


@dataclass(kw_only=True, slots=True)
class Watch:
    """A limit on a text file while it is read, which refuses the file once it has too many places."""

    file_bytes: int
    columns: int
    limits: TableLimits | None
    rows: int = 0

    def add(self, rows: int) -> None:
        """Count places; raise :class:`DataError` if there are too many."""
        self.rows += rows
        if self.limits is not None:
            decoded = self.file_bytes + self.rows * self.columns * BYTES_PER_CELL
            size = Size(
                file_bytes=self.file_bytes, rows=self.rows, columns=self.columns, decoded_bytes=decoded
            )
            refuse(over(size, self.limits))


def over(size: Size, limits: TableLimits) -> list[Problem]:
    """Return a problem for each limit that a table exceeds; only public measures are given in numbers."""
    return [
        Problem(
            field=f"table.{name}",
            value=f"{value:,}" if name in _PUBLIC else "more",
            remedy=f"at most {getattr(limits, name):,}; make the table smaller, or ask the operator",
        )
        for name, value in passed(size, limits).items()
        if name not in _OF_A_RECORD
    ]


def _too_large(path: Path, limits: TableLimits) -> list[Problem]:
    if path.stat().st_size > limits.file_bytes:
        remedy = f"at most {limits.file_bytes:,}; make the table smaller, or ask the operator"
        return [Problem(field="table.file_bytes", value="more", remedy=remedy)]
    if path.suffix.lower() != ".parquet":
        return []
    try:
        return over(parquet_size(path, limits), limits)
    except (pa.ArrowException, OSError):
        raise unreadable(path.name, "it is damaged, or no Parquet file") from None  # Arrow may quote it
