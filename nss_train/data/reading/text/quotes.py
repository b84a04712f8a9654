"""Quotes that stand where none may: within a quoted field without being doubled, or without a partner."""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nss_train.data.reading.text.dialect import Dialect, open_reader

_CHUNK_BYTES = 2**24


def has_odd_quotes(path: Path, dialect: Dialect) -> bool:
    """Tell whether a quote may stand where none may; of quotes in unquoted fields, which may, it is unsure.

    Elsewhere each odd quote opens, each even one closes, and a doubled one closes and opens.
    """
    if dialect.encoding.startswith(("utf-16", "utf-32", "utf-7")) or not dialect.quote.isascii():
        return True
    marks = np.zeros(256, np.bool_)
    marks[list((dialect.delimiter + dialect.quote + "\r\n").encode())] = True
    quote, opened, text = ord(dialect.quote), 0, b"\n"
    with path.open("rb") as file:
        head = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)
        while chunk := head + file.read(_CHUNK_BYTES):
            text, head = text + chunk, b""
            found = _quotes(text, quote)
            if _is_odd(text, found, opened, marks):
                return True
            opened, text = (opened + len(found)) % 2, text[-2:]
    text += b"\n"
    found = _quotes(text, quote)
    return _is_odd(text, found, opened, marks) or (opened + len(found)) % 2 == 1


def _quotes(text: bytes, quote: int) -> npt.NDArray[np.intp]:
    """Return the positions of the quotes that have both neighbours in the text."""
    return np.flatnonzero(np.frombuffer(text, np.uint8)[1:-1] == quote) + 1


def _is_odd(text: bytes, found: npt.NDArray[np.intp], opened: int, marks: npt.NDArray[np.bool_]) -> bool:
    """Tell whether a quote opens after something else than a mark, or closes before it."""
    letters = np.frombuffer(text, np.uint8)
    before, after = letters[found[opened::2] - 1], letters[found[1 - opened :: 2] + 1]
    return not bool(marks[before].all() and marks[after].all())


def strict_records(
    text: Iterable[str], dialect: Dialect
) -> Iterator[tuple[int, list[str]] | tuple[int, csv.Error]]:
    """Yield the fields of each record and the line that it ends in; for a record whose quotes are wrong, the
    error and the line that it begins in.
    """
    reader = open_reader(text, dialect, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begin, error
            continue
        if row and not (len(row) == 1 and row[0].isspace()):
            yield reader.line_num, row
