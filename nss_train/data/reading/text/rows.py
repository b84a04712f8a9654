"""The check that the rows of a text table fit its header: misfits are reported, never shifted or filled."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv

from nss_train.config.sections.reading import ColumnReading, column_setting
from nss_train.data.reading.faults import problem, unreadable
from nss_train.data.reading.text.dialect import Dialect, mark_name, open_text, records
from nss_train.data.reading.text.quotes import has_odd_quotes, strict_records
from nss_train.errors import DataError, Problem, unlisted
from nss_train.text.counted import counted

_SHOWN_LINES = 10
_BLOCK_BYTES = 2**24
_DROP = column_setting("", ColumnReading.DROP)
_MADE_UP = re.compile(r"Unnamed: \d+")
"""Name that pandas gives to a column without one."""


def check_header(path: Path, dialect: Dialect, *, dropped: Collection[str] = ()) -> list[str]:
    """Return a text table's column names; :class:`DataError` unless every kept column has a unique name."""
    with open_text(path, dialect) as text:
        try:
            _, names = next(records(text, dialect), (0, []))
        except csv.Error as error:
            raise unreadable(path.name, f"the header is no CSV ({error}); a quote may be missing") from error
    if not names:
        raise unreadable(path.name, "no columns; a table needs a header and at least two rows")
    check_names(names, dropped=dropped, ends_in=mark_name(dialect.delimiter))
    return names


def check_names(names: Sequence[str], *, dropped: Collection[str] = (), ends_in: str = "empty cell") -> None:
    """Raise :class:`DataError` with every name that is missing, made up or repeated, unless dropped."""
    problems = list(_nameless(names, dropped, ends_in))
    kept = [names[place] for place in kept_places(names, dropped)]
    if problems:
        raise DataError("The table has columns without a name.", [*problems, *_repeated(kept)])
    check_unique(kept)


def kept_places(names: Sequence[str], dropped: Collection[str]) -> list[int]:
    """Return the positions of the columns that are not dropped."""
    return [place for place, name in enumerate(names) if own_name(name) not in dropped]


def own_name(name: str) -> str:
    """Return a name as the config has it: a name of spaces is empty."""
    return name if name.strip() else ""


def check_unique(names: Sequence[str]) -> None:
    """Raise :class:`DataError` if two columns have the same name."""
    if problems := list(_repeated(names)):
        raise DataError("Duplicate column names.", problems)


def _repeated(names: Sequence[str]) -> Iterator[Problem]:
    found = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if found:
        yield Problem(
            field="columns", value=found, remedy="these column names appear more than once; rename them"
        )


def _nameless(names: Sequence[str], dropped: Collection[str], ends_in: str) -> Iterator[Problem]:
    for number, name in enumerate(names, 1):
        if own_name(name) in dropped:
            continue
        if not name.strip():
            yield Problem(field=f"column {number}", value=name, remedy=_remedy(number, names, ends_in))
        elif _MADE_UP.fullmatch(name):
            remedy = (
                "pandas made this name up for a column without one; leave it out"
                f" ({column_setting(name, ColumnReading.DROP)}), or name it"
            )
            yield Problem(field=f"column {number}", value=name, remedy=remedy)


def _remedy(number: int, names: Sequence[str], ends_in: str) -> str:
    if number == len(names):
        return f"it has no name: the header ends in a {ends_in}; name it, or leave it out ({_DROP})"
    if number == 1:
        return (
            f"it has no name, and may be an index that pandas or R wrote; leave it out ({_DROP}), or name it"
        )
    return "it has no name; name it, or remove lines that stand above the header"


def check_rows(path: Path, dialect: Dialect, width: int) -> None:
    """Raise :class:`DataError` with the first lines that have more or fewer fields than the header.

    The same goes for quotes that stand where none may: readers drop or keep them without a word.
    """
    if _all_fit(path, dialect, width) and not has_odd_quotes(path, dialect):
        return
    found = _Misfits.of(path, dialect, width)
    if found.rows or found.quotes:
        what = "ragged rows" if found.rows else "quotes that do not enclose a field"
        raise DataError(f"The table has {what}.", list(found.problems(path.name)))


def _all_fit(path: Path, dialect: Dialect, width: int) -> bool:
    """Tell whether Arrow finds that all rows fit. This is quick; otherwise each line is checked."""

    def judge(row: arrow_csv.InvalidRow) -> str:
        is_blank = row.text.isspace() and dialect.delimiter not in row.text
        return "skip" if is_blank else "error"

    options = {
        "read_options": arrow_csv.ReadOptions(
            block_size=_BLOCK_BYTES, column_names=[str(n) for n in range(width)], encoding=dialect.encoding
        ),
        "parse_options": arrow_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote,
            newlines_in_values=True,
            invalid_row_handler=judge,
        ),
        "convert_options": arrow_csv.ConvertOptions(
            include_columns=["0"], column_types={"0": pa.binary()}, check_utf8=False
        ),
    }
    try:
        with arrow_csv.open_csv(path, **options) as batches:
            for _ in batches:
                pass
    except (pa.ArrowException, UnicodeError):
        return False
    return True


@dataclass(kw_only=True, slots=True)
class _Misfits:
    """The number of rows that do not fit the header, and the first of them."""

    dialect: Dialect
    width: int
    rows: int
    """Number of rows that do not fit."""
    total: int
    widths: set[int]
    """Numbers of fields that the rows have."""
    trailing: int
    """Number of rows whose only surplus is an empty field at the end."""
    shown: list[Problem]
    above: int = 0
    """Number of records of one field at the beginning, the header included."""
    quotes: int = 0
    """Number of records in which a quote stands where none may."""

    @classmethod
    def of(cls, path: Path, dialect: Dialect, width: int) -> _Misfits:
        found = cls(dialect=dialect, width=width, rows=0, total=0, widths=set(), trailing=0, shown=[])
        with open_text(path, dialect) as text:
            for line, row in strict_records(text, dialect):
                if isinstance(row, csv.Error):
                    found.add_quotes(line, row)
                else:
                    found.add(line, row)
        return found

    def add_quotes(self, line: int, error: csv.Error) -> None:
        """Count one more record whose quotes are wrong; ``line`` is where it begins."""
        self.quotes += 1
        if len(self.shown) >= _SHOWN_LINES:
            return
        quote = self.dialect.quote
        if "end of data" in str(error) or "field larger" in str(error):
            remedy = f"a {quote} opens a field here and is never closed; close it, or double it"
        else:
            remedy = (
                f"text follows the {quote} that closes a field; double each {quote} within a field"
                f" ({quote * 2}; a backslash before it does not help)"
            )
        self.shown.append(Problem(field=f"line {line}", value=None, remedy=remedy))

    def add(self, line: int, row: list[str]) -> None:
        """Check one more record; the first one is the header."""
        self.total += 1
        self.above += len(row) == 1 and self.above == self.total - 1
        if self.total > 1:
            self.widths.add(len(row))
        if len(row) == self.width:
            return
        self.rows += 1
        self.trailing += len(row) == self.width + 1 and not row[-1]
        if len(self.shown) < _SHOWN_LINES:
            value = self.dialect.delimiter.join(row)[:80]
            self.shown.append(Problem(field=f"line {line}", value=value, remedy=self._remedy(len(row))))

    def problems(self, name: str) -> Iterator[Problem]:
        """Yield what all misfits have in common, then each of the first ones."""
        if (common := self._common()) is not None:
            yield problem(name, common)
        yield from self.shown
        if (more := self.rows + self.quotes - len(self.shown)) > 0:
            yield unlisted(more)

    def _remedy(self, fields: int) -> str:
        said = f"{counted(fields, 'field')} where the header has {self.width}"
        mark = mark_name(self.dialect.delimiter)
        if fields > self.width:
            return f"{said}; quote fields that hold a {mark}"
        return (
            f"{said}; fill it up with a {mark} for each missing field, and quote fields that hold line breaks"
        )

    def _common(self) -> str | None:
        mark = mark_name(self.dialect.delimiter)
        rows = self.total - 1
        if self.trailing == rows == self.rows > 0:
            return (
                f"each row ends in a {mark} that the header does not have; remove it, or name one more column"
            )
        if 1 < self.above == self.total - self.rows:
            return f"the first {self.above} lines stand above the header and are no part of it; remove them"
        if self.rows == rows and len(self.widths) == 1:
            (fields,) = self.widths
            return (
                f"all {rows:,} rows have {counted(fields, 'field')} and the header has {self.width}; remove"
                f" lines that stand above the header, quote fields that hold a {mark}, or set"
                " reading.delimiter"
            )
        return None
