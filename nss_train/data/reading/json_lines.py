"""JSON Lines, one object per line; a line that is not an object is reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from nss_train.data.reading.faults import problem
from nss_train.errors import DataError, Problem

_SHOWN = 10
_WHOLE_BITS = 64
_HEAD_CHARS = 2**22
"""Most characters of a file in which an object over several lines is looked for."""
_FORMAT = "one JSON object a line, or one array of objects"


def read_lines(path: Path, name: str) -> pd.DataFrame:
    """Return the frame of a file; ``name`` is the table's name in errors."""
    if not _are_objects(path):  # other values would end Arrow's reader, and this process with it
        raise DataError("The table cannot be read.", list(islice(_faults(path), _SHOWN)))
    try:
        return pd.read_json(path, lines=True)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        found = list(islice(_faults(path), _SHOWN)) or [problem(name, f"not {_FORMAT}: {error}")]
        raise DataError("The table cannot be read.", found) from error


def _are_objects(path: Path) -> bool:
    """Tell whether each line that is not empty begins as an object does."""
    with path.open("rb") as file:
        return all(line.lstrip()[:1] in {b"{", b""} for line in file)


def _faults(path: Path) -> Iterator[Problem]:
    """Yield a problem for each line that is not an object, or column with integers beyond 64 bits."""
    named = set[str]()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            shown = line[:80].decode("utf-8", "replace").strip()
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                why = _on_several_lines(path) if number == 1 else None
                yield Problem(field=f"line {number}", value=shown, remedy=f"not {_FORMAT}: {why or error}")
                if number == 1:
                    return  # another format: every line is wrong
                continue
            if not isinstance(found, dict):
                yield Problem(field=f"line {number}", value=shown, remedy=f"no object; write {_FORMAT}")
                continue
            for column in sorted(_huge(found) - named):
                named.add(column)
                remedy = f"line {number} holds a whole number beyond {_WHOLE_BITS} bits; write it as text"
                yield Problem(field=column, value=shown, remedy=remedy)


def _on_several_lines(path: Path) -> str | None:
    """Return what is wrong with a file that begins with an object over several lines; ``None`` for others."""
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(_HEAD_CHARS)
    try:
        _, end = json.JSONDecoder().raw_decode(head.lstrip())
    except (ValueError, RecursionError):
        return None
    if "\n" not in head.lstrip()[:end]:
        return None
    return "the first object goes over several lines; write each on one line, or all in an array"


def _huge(found: dict[str, Any]) -> set[str]:
    return {name for name, value in found.items() if any(_is_huge(one) for one in _leaves(value))}


def _leaves(value: object) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and not -(2 ** (_WHOLE_BITS - 1)) <= value < 2**_WHOLE_BITS


def exact_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with all digits of their numbers; :class:`DataError` names a wrong line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, path.name, number)


def _object(line: bytes, name: str, number: int) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        found = json.loads(text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _no_json(name, number, str(error)) from error
    if not isinstance(found, dict):
        raise _no_json(name, number, "not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of some pairs; :class:`ValueError` for a repeated name, or for invalid Unicode."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has {next(name for name in names if names.count(name) > 1)!r} twice")
    for text in (part for pair in pairs for part in pair if isinstance(part, str)):
        text.encode()  # refuses half of a surrogate pair
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _no_json(name: str, number: int, why: str) -> DataError:
    remedy = f"line {number} is not JSON Lines, one object a line: {why}"
    return DataError("The table cannot be read.", [Problem(field="table", value=name, remedy=remedy)])
