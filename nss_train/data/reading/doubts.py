"""Doubts about a table that was read: rows below the data, pairs in one column. They warn, never refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from nss_train.counted import counted
from nss_train.data.reading.dialect import Dialect

TOTALS = frozenset(
    {"total", "totals", "grand total", "overall total", "sum", "subtotal"}
    | {"gesamt", "insgesamt", "summe", "somme", "totale", "totaal", "suma", "всего", "итого", "合计", "总计"}
)
"""First cells of a last row that sums the others up, in lower case."""
_TAIL_BYTES = 2**14
_MOST_BELOW = 5
"""Most rows below an empty line that are taken for a note: longer parts are more likely data."""
_PAIR = r"\S+ \S+"
_FEW_PAIRS = 2


def doubts(frame: pd.DataFrame) -> Iterator[str]:
    """Yield the doubts about a table in any format."""
    yield from _total(frame)
    yield from _pairs(frame)


def below_an_empty_line(path: Path, dialect: Dialect) -> Iterator[str]:
    """Yield a doubt about the last rows of a text file if an empty line stands before them, and nowhere else.

    Only the end of the file is read. An empty line within quotes is part of a cell.
    """
    if dialect.encoding.startswith(("utf-16", "utf-32")):
        return
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().rstrip().splitlines()]
    empty = [number for number, line in enumerate(lines) if not line]
    below = lines[empty[-1] + 1 :] if empty else []
    # Only a file of more lines shows that the empty one is an exception.
    is_exception = len(empty) == 1 and len(lines) > 2 * (len(below) + 1)
    if is_exception and len(below) <= _MOST_BELOW and b"".join(below).count(dialect.quote.encode()) % 2 == 0:
        rows = "row, which is" if len(below) == 1 else f"{counted(len(below), 'row')}, which are"
        yield (
            f"an empty line stands before the last {rows} trained like the others. If they are a note or a"
            " sum, remove them"
        )


def _total(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a doubt about a last row that begins as a sum does, while no other row does."""
    present = frame.iloc[-1].dropna()
    if present.empty or not isinstance(present.iloc[0], str) or not _is_total(present.iloc[0]):
        return
    column, said = present.index[0], present.iloc[0]
    others = frame[column].iloc[:-1]
    if not any(isinstance(cell, str) and _is_total(cell) for cell in others.unique()):
        yield (
            f"the last row has {said.strip()!r} in {column} and is trained like the others. If it sums them"
            " up, remove it"
        )


def _is_total(cell: str) -> bool:
    return cell.strip().rstrip(":").casefold() in TOTALS


def _pairs(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a doubt about a single column whose name and cells are two words each."""
    if len(frame.columns) != 1 or len(frame) < _FEW_PAIRS:
        return
    name, cells = str(frame.columns[0]), frame.iloc[:, 0]
    if cells.dtype != object or len(name.split(" ")) != 2:
        return
    if all(isinstance(cell, str) for cell in cells) and cells.str.fullmatch(_PAIR).all():
        yield f"{name}: read as one column. If two are separated by a space, set reading.delimiter to ' '"
