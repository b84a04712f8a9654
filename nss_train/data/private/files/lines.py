"""The places of a text file: the byte ranges of its records, determined by line ends alone.

A line ends at ``\\n`` or at the end of the file; one ``\\r`` before that is not part of it. Nothing else
separates lines: no lone ``\\r``, no ``\\v``, no U+2028. A ``\\n`` at the end of the file ends its last line
and begins no other; each other empty line is a place with a null record. A byte order mark before the first
line is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 2**26
"""Most bytes of a record's line. Ten columns of the longest cells that are allowed by default fit twice."""
TOO_LONG = None

Line = bytes | None
"""A line without its end; ``None`` if it is too long to be read."""


def lines(path: Path) -> Iterator[Line]:
    """Yield each line of a file."""
    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        for piece in iter(partial(file.readline, MAX_LINE_BYTES), b""):
            if len(piece) == MAX_LINE_BYTES and not piece.endswith(b"\n"):
                _skip_line(file)
                yield TOO_LONG
            else:
                yield piece.removesuffix(b"\n").removesuffix(b"\r")


def quoted_lines(path: Path) -> Iterator[Line]:
    """Yield each record of a CSV file whose cells may hold line breaks (RFC 4180), by pairing all quotes."""
    parts: list[bytes] = []
    size = quotes = 0
    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        for piece in iter(partial(file.readline, MAX_LINE_BYTES), b""):
            size += len(piece)
            quotes += piece.count(b'"')
            if size <= MAX_LINE_BYTES:
                parts.append(piece)
            if quotes % 2 == 0 and piece.endswith(b"\n"):
                yield _joined(parts, size)
                parts, size, quotes = [], 0, 0
    if size:
        yield _joined(parts, size)


def chunks(found: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """Yield the lines in lists of ``size``."""
    while chunk := list(islice(found, size)):
        yield chunk


def _joined(parts: list[bytes], size: int) -> Line:
    if size > MAX_LINE_BYTES:
        return TOO_LONG
    return b"".join(parts).removesuffix(b"\n").removesuffix(b"\r")


def _skip_line(file: IO[bytes]) -> None:
    while not (piece := file.readline(MAX_LINE_BYTES)).endswith(b"\n") and piece:
        pass
