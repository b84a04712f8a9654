"""The marks of a text file, and its cells as they are written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nss_train.data.reading.packed import open_bytes
from nss_train.formats import Compression

CHUNK_ROWS = 10_000
_FIELD_CHARS = 2**27
"""Most characters of a cell in memory; a longer one has lost its closing quote."""
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The format of a text table."""

    delimiter: str = ","
    quote: str = '"'
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    """Name of the codec. A byte-order mark is not part of the text."""
    compression: Compression | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether these are the marks that pandas assumes by default."""
        return self == Dialect(compression=self.compression)

    def __str__(self) -> str:
        parts = [mark_name(self.delimiter), self.encoding.upper()]
        if self.quote != '"':
            parts.append(f"quote {self.quote}")
        if self.decimal != "." or self.thousands:
            parts.append(f"decimal {mark_name(self.decimal)}")
        if self.thousands:
            parts.append(f"thousands {mark_name(self.thousands)}")
        return ", ".join([*parts, *([self.compression.removeprefix(".")] if self.compression else [])])


def mark_name(mark: str) -> str:
    """Return a readable name of a mark."""
    return _NAMES.get(mark, {" ": "space", "\u00a0": "space", ".": "point"}.get(mark, mark))


@contextmanager
def open_text(path: Path, dialect: Dialect) -> Iterator[TextIO]:
    """Yield the text of a file, with its line ends as they are."""
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    with (
        open_bytes(path, dialect.compression) as file,
        io.TextIOWrapper(file, encoding=encoding, newline="") as text,
    ):
        yield text


def records(text: Iterable[str], dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each record and the line that it ends in; skip empty lines, as pandas does."""
    reader = open_reader(text, dialect)
    for row in reader:
        if row and not (len(row) == 1 and row[0].isspace()):
            yield reader.line_num, row


def open_reader(text: Iterable[str], dialect: Dialect, *, strict: bool = False) -> Any:
    """Return a reader of fields; a strict one raises ``csv.Error`` where a quote stands that none may."""
    csv.field_size_limit(_FIELD_CHARS)
    return csv.reader(text, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=strict)


def text_chunks(path: Path, dialect: Dialect, *, rows: int = CHUNK_ROWS) -> Iterator[dict[str, list[str]]]:
    """Yield the cells of a table as they are written, some thousand rows at a time, by column.

    The rows must fit the header. A quoted cell and the same cell without quotes look equal here.
    """
    with open_text(path, dialect) as text:
        found = records(text, dialect)
        _, header = next(found, (0, []))
        chunk: list[list[str]] = []
        for _, row in found:
            chunk.append(row)
            if len(chunk) == rows:
                yield _by_column(header, chunk)
                chunk = []
        if chunk:
            yield _by_column(header, chunk)


def _by_column(header: list[str], rows: list[list[str]]) -> dict[str, list[str]]:
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
