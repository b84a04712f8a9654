"""The conversion of a JSON file with one array of objects to JSON Lines."""

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
"""Line breaks between the tokens of JSON become spaces; within its texts they are escaped."""


@contextmanager
def as_lines(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the file as JSON Lines, and whether it is a converted copy rather than the file itself."""
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
    """Yield the file, or a copy without its UTF-8 byte-order mark, which pandas does not accept here."""
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
    """Yield each element of an array as it is written, on one line."""
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
            more = text.read(max(_CHUNK_CHARS, len(buffer)))  # doubled, so that long ones are decoded seldom
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
