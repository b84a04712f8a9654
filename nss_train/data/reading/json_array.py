"""A JSON file that is one array of objects, as JSON Lines."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import TextIO

from nss_train.data.reading.faults import unreadable

_CHUNK_CHARS = 2**20
_SPACE = re.compile(r"[\s]*")
_BREAKS = str.maketrans("\r\n", "  ")
"""Between the tokens of JSON; within its texts line breaks are escaped."""


@contextmanager
def as_lines(path: Path) -> Iterator[tuple[Path, bool]]:
    """The file with one object a line, and whether it had to be made: of JSON Lines the file itself."""
    with path.open("rb") as file:
        head = file.read(_CHUNK_CHARS).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"["):
        with _without_mark(path) as plain:
            yield plain, False
        return
    with TemporaryDirectory(prefix="nss-train-") as folder:
        lines = Path(folder) / path.with_suffix(".jsonl").name
        with path.open(encoding="utf-8-sig") as text, lines.open("w", encoding="utf-8") as written:
            try:
                for line in _elements(text):
                    written.write(line + "\n")
            except (ValueError, RecursionError) as error:
                raise unreadable(path.name, f"not an array of JSON objects: {error}") from error
        yield lines, True


@contextmanager
def _without_mark(path: Path) -> Iterator[Path]:
    """The file, copied if it begins with the byte-order mark of UTF-8, which pandas does not take here."""
    with path.open("rb") as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            yield path
            return
        with TemporaryDirectory(prefix="nss-train-") as folder:
            plain = Path(folder) / path.name
            with plain.open("wb") as copied:
                copyfileobj(file, copied)
            yield plain


def _elements(text: TextIO) -> Iterator[str]:
    """Each element of an array as it is written, on one line."""
    decode = json.JSONDecoder().raw_decode
    buffer, at, ended = text.read(_CHUNK_CHARS), 0, False
    at = _skip(buffer, at) + 1  # the bracket
    first = True
    while True:
        if len(buffer) - at < _CHUNK_CHARS and not ended:
            more = text.read(max(_CHUNK_CHARS, len(buffer) - at))
            buffer, at, ended = buffer[at:] + more, 0, not more
        start = _skip(buffer, at)
        if buffer[start : start + 1] == "]":
            _check_end(buffer, start + 1)
            return
        if not first:
            if buffer[start : start + 1] != ",":
                raise ValueError(f"a comma is missing before {buffer[start : start + 20]!r}")
            start = _skip(buffer, start + 1)
        try:
            value, end = decode(buffer, start)
        except ValueError:
            if ended:
                raise
            more = text.read(max(_CHUNK_CHARS, len(buffer)))  # doubled, so that a long one is not read often
            buffer, at, ended = buffer[at:] + more, 0, not more
            continue
        if not isinstance(value, dict):
            raise ValueError(f"{buffer[start:end][:40]} is no object")  # noqa: TRY004 (of the file, not of ours)
        yield buffer[start:end].translate(_BREAKS)
        at, first = end, False


def _skip(buffer: str, at: int) -> int:
    match = _SPACE.match(buffer, at)
    return at if match is None else match.end()


def _check_end(buffer: str, at: int) -> None:
    rest = buffer[_skip(buffer, at) :]
    if rest:
        raise ValueError(f"{rest[:20]!r} follows the array")
