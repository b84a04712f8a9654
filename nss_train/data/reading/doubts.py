"""Doubts about a table that was read: rows below the data, names like cells. They warn, never refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import dropwhile, pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from nss_train.data.reading.text.dialect import Dialect, open_text
from nss_train.errors import DataError, Problem, unlisted
from nss_train.text.counted import counted

TOTALS = frozenset(
    {"total", "totals", "grand total", "overall total", "sum", "subtotal"}
    | {"gesamt", "gesamtsumme", "gesamtergebnis", "insgesamt", "summe", "zwischensumme"}
    | {"total general", "total général", "sous-total", "somme", "totale", "suma"}
    | {"totaal", "totalt", "summa", "всего", "итого", "合计", "总计"}
)
"""First cells of a last row that sums the others up, in lower case."""
_UNSEEN = re.compile(r"[\u00a0\u00ad\u200b-\u200f\u2028-\u202f\u2060\ufeff]")
_SHOWN_NAMES = 5
_SHOWN_ROWS = 10
_TAIL_BYTES = 2**14
_MOST_BELOW = 5
"""Most rows below an empty line that are taken for a note: longer parts are more likely data."""
_PAIR = r"\S+ \S+"
_FEW_PAIRS = 2
_FIRST_ROWS = 1000
"""Rows whose cells are compared with the names."""
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)([.,][0-9]+)?([eE][+-]?[0-9]+)?")
_DIGIT = re.compile(r"[0-9]")
_FEW_WORDS = 3
_MANY_NUMBERS = 10
"""At most so few words, among at least so many numbers, are told: other columns are meant as text."""


def doubts(frame: pd.DataFrame) -> Iterator[str]:
    """Yield the doubts about a table in any format."""
    yield from _total(frame)
    yield from _empty_rows(frame)
    yield from _names(frame)
    yield from _pairs(frame)
    yield from _header_of_cells(frame)
    yield from _words_among_numbers(frame)


def unnamed_index(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the doubt about a data frame's index that holds texts or times and has no name."""
    levels = [frame.index.get_level_values(number) for number in range(frame.index.nlevels)]
    left_out = [level for level in levels if level.name is None and level.dtype.kind not in "iu"]
    if not left_out:
        return ()
    return ("the data frame's index has no name and is left out. Name it if it is to be trained",)


def blank_lines(path: Path, dialect: Dialect) -> tuple[str, ...]:
    """Return the doubt about empty lines in a text table of one column, whose empty cells look the same."""
    with open_text(path, dialect) as text:
        blank = waiting = 0
        for line in dropwhile(str.isspace, text):  # lines above the header or below the rows are no cells
            if line.isspace():
                waiting += 1
            else:
                blank, waiting = blank + waiting, 0
    if not blank:
        return ()
    what = f"{counted(blank, 'empty line')} of the single column"
    return (f'{what} skipped. If these are missing values, write each as ""',)


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


def _empty_rows(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a doubt about rows without any value, as spreadsheets write them below their data."""
    empty = np.ones(len(frame), np.bool_)
    for number in range(len(frame.columns)):
        empty &= frame.iloc[:, number].isna().to_numpy(np.bool_)
        if not empty.any():
            return
    if len(frame.columns) > 1:
        yield (
            f"{counted(int(empty.sum()), 'row')} without any value, trained like the others. If the table"
            " ends above them, or has gaps, remove them"
        )


def _names(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a doubt about names with spaces around them, or with characters that nobody sees."""
    odd = [ascii(name) for name in map(str, frame.columns) if name.strip() != name or _UNSEEN.search(name)]
    if odd:
        yield (
            f"{counted(len(odd), 'column name')} with spaces around or invisible characters: {_first(odd)}."
            " The config has to write them the same way"
        )


def check_header_once(frame: pd.DataFrame) -> None:
    """Raise :class:`DataError` with the rows that repeat the header, as joined files have them."""
    if len(frame.columns) < 2 or any(dtype.kind != "O" for dtype in frame.dtypes):
        return  # a single column may hold its own name, and one of numbers holds none
    names = list(map(str, frame.columns))
    rows = [row for row, cell in enumerate(frame.iloc[:, 0].array) if _says(cell, names[0])]
    for number, name in enumerate(names):
        cells = frame.iloc[:, number].array
        rows = [row for row in rows if _says(cells[row], name)]
    problems = [
        Problem(field=f"row {row + 1}", value=None, remedy="it repeats the header; remove it")
        for row in rows[:_SHOWN_ROWS]
    ]
    more = [unlisted(len(rows) - _SHOWN_ROWS)] if len(rows) > _SHOWN_ROWS else []
    if problems:
        raise DataError("The header stands among the rows.", [*problems, *more])


def _says(cell: object, name: str) -> bool:
    return isinstance(cell, str) and cell == name  # a nested cell's own comparison may give an array


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


def _header_of_cells(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a doubt about names most of which look like cells of their own columns."""
    first = frame.iloc[:_FIRST_ROWS]
    names = [str(name) for name in frame.columns]
    is_label = _ascend(names)
    alike = [
        name
        for number, name in enumerate(names)
        if not (is_label and _NUMBER.fullmatch(name)) and _is_like(name, first.iloc[:, number])
    ]
    if len(alike) >= 2 and 2 * len(alike) > len(names):
        yield (
            f"{counted(len(alike), 'column name')} of {len(names)} look like cells of their columns:"
            f" {_first(list(map(ascii, alike)))}."
            " If the table has no header, write one above its first row"
        )


def _first(names: list[str]) -> str:
    """Return the first of many names, in one line."""
    return ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")


def _ascend(names: list[str]) -> bool:
    """Return whether the names that are numbers are ascending integers, as years in a wide table are."""
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    if not all(name.isdecimal() for name in numbers):
        return False
    # Without leading zeros the longer one is the larger; Python converts no number of more than 4,300 digits.
    return all((len(one), one) < (len(other), other) for one, other in pairwise(numbers))


def _is_like(name: str, column: pd.Series) -> bool:
    """Return whether a name is a number above numbers, one of its column's texts, or has their digits."""
    if column.dtype.kind in "iuf":
        return _NUMBER.fullmatch(name) is not None
    texts = {cell for cell in column if isinstance(cell, str)}
    shapes = {_DIGIT.sub("0", text) for text in texts}
    return name in texts or (_DIGIT.search(name) is not None and shapes == {_DIGIT.sub("0", name)})


def _words_among_numbers(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a doubt about each column of numbers that a few words make text, such as ``unknown``."""
    for name, column in frame.items():
        words = _few_words(column) if column.dtype == object else ()
        if words:
            shown = ", ".join(f"'{word}'" if word.isprintable() else ascii(word) for word in words)
            yield (
                f"{name}: its cells are numbers but for {shown}, which makes all of them text. If these"
                " words mean that a value is missing, empty their cells"
            )


def _few_words(column: pd.Series) -> tuple[str, ...]:
    """Return the few different texts among many different numbers; none if the column is otherwise."""
    if pd.api.types.infer_dtype(column, skipna=True) != "string":
        return ()
    words: list[str] = []
    numbers = 0
    for text in column.dropna().unique():
        if _NUMBER.fullmatch(text):
            numbers += 1
        else:
            words.append(text)
        if len(words) > _FEW_WORDS:
            return ()
    return tuple(words) if numbers >= _MANY_NUMBERS else ()
