"""The changes that reading makes to a table's cells, found before training by comparing with the file.

Each column's cells are compared with the text of the examples. Most of the work is done once for each
distinct cell of a batch; only counts and a bounded sketch of its values are kept of a column.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import types

from nss_train.config.sections.reading import ReadingParameters, as_written
from nss_train.data.comparison.numerals import Numerals, is_numeral, is_text
from nss_train.data.comparison.pairs import Sketch, hashes
from nss_train.data.reading.cells import Reader, TableFile, decoded, readers
from nss_train.data.reading.faults import unreadable
from nss_train.data.tokenization.distinct_values import Column, distinct_columns, exact_texts, to_arrow
from nss_train.errors import DataError, Problem
from nss_train.text.counted import counted

FEW = 0.01
"""Share of a column's distinct values that rounding to NSS's ten decimals may lose if they are measurements:
of 3,000,000 random numbers below 1 it loses 0.02 %. Whole numbers may be keys, so none may be lost."""
_SHOWN_WORDS = 5
_NAMED = re.compile(r"Column\(/([^/)]+)")


class What(StrEnum):
    """A way in which cells change; its value is the text of the report."""

    NULLED = "{cells} read as missing (null): {words}"
    ZEROS = "leading zeros lost in {cells}"
    SIGNS = "plus sign lost in {cells}"
    ENDS = "zeros at the end lost in {cells}"
    SPACES = "spaces around the number lost in {cells}"
    POWERS = "codes such as 3E5 trained as numbers in {cells}"
    ROUNDED = "{cells} rounded"
    NOISE = "digits added to {cells}"
    WHOLE = "whole numbers trained as floats (3 as 3.0) in {cells}"
    QUOTED = "quoted texts trained as numbers in {cells}"
    INFINITE = "infinite numbers trained as null in {cells}"
    MIXED = "values of different types become values of one ({said})"
    FLAGS = "true and false trained as 1.0 and 0.0 in {cells}"
    NESTED = "dates, decimals or numbers within {cells} trained otherwise"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The changes to one column."""

    column: str
    cells: dict[What, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    """Most frequent words that become null. They come from the reader's own list, not from the data."""
    distinct: int | None = None
    """Number of distinct cells before reading, if some of them become equal …"""
    trained: int | None = None
    """… and number of distinct values afterwards."""
    said: str = ""
    """Message of Arrow's reader about the column."""

    @property
    def loses_values(self) -> bool:
        """Return whether two cells that differ in substance become one, or may do so."""
        return self.distinct is not None or What.MIXED in self.cells

    @property
    def what(self) -> str:
        """Return all changes in words."""
        lost = "" if self.distinct is None else f"{self.distinct:,} distinct values become {self.trained:,}"
        words = ", ".join(self.words)
        told = [
            what.format(cells=_cells(count), words=words, said=self.said)
            for what, count in self.cells.items()
        ]
        return "; ".join(filter(None, [lost, *told]))

    @property
    def remedy(self) -> str:
        return as_written(self.column)

    def __str__(self) -> str:
        return f"{self.column}: {self.what}. {self.remedy}"


def _cells(count: int) -> str:
    return counted(count, "cell")


def check_changes(file: TableFile, frame: pd.DataFrame, reading: ReadingParameters) -> tuple[Change, ...]:
    """Return the changes to the cells of a file that was read as ``frame``.

    Raises :class:`DataError` with each column that loses distinct values, unless ``types`` is given.
    """
    changes = find_changes(file, frame)
    lost = [change for change in changes if change.loses_values]
    if lost and reading.types is None:
        told = [Problem(field=one.column, value=one.what, remedy=_accept(one.remedy)) for one in lost]
        raise DataError("Reading the table as NSS does would lose distinct values.", told)
    return tuple(changes)


def _accept(advice: str) -> str:
    return f"{advice[0].lower()}{advice[1:]}; reading.types: nss accepts the loss"


def check_dates(columns: Sequence[Column], reading: ReadingParameters) -> list[str]:
    """Return warnings about dates: NSS writes numbers, its schema says text, and no generated row is valid.

    Raises :class:`DataError` instead, unless ``types`` is given.
    """
    dates = [column.name for column in columns if column.is_date]
    what = "dates are trained as numbers of milliseconds but checked as text: no generated row will be valid"
    if dates and reading.types is None:
        told = [Problem(field=name, value=what, remedy=_accept(as_written(name))) for name in dates]
        raise DataError("Not one row that is generated would be valid.", told)
    return [f"{name}: {what}. {as_written(name)}" for name in dates]


def find_changes(file: TableFile, frame: pd.DataFrame) -> list[Change]:
    """Return the changes to a file's cells, for the columns that ``frame`` has, in its order."""
    quicker, last = readers(file.form)
    if quicker is not None:
        with suppress(pa.ArrowInvalid):  # it is less tolerant than the last reader
            rows, found = _compared(quicker, file, frame)
            if rows == len(frame):
                return found
    try:
        return _compared(last, file, frame)[1]
    except pa.ArrowInvalid as error:
        return _mixed(str(error), frame, file.path.name)


def _mixed(said: str, frame: pd.DataFrame, name: str) -> list[Change]:
    """Return the change of a column with several types in the file, as Arrow's reader reports it.

    A column that pandas leaves as objects has no common type and is refused later, when it is written.
    """
    found = _NAMED.search(said)
    if found is None or "twice" in said:
        raise unreadable(name, f"not JSON as its standard has it: {said}")
    column = found[1]
    if column in frame and frame[column].dtype == object:
        return []
    return [Change(column=column, cells={What.MIXED: 0}, said=said)]


def _compared(reader: Reader, file: TableFile, frame: pd.DataFrame) -> tuple[int, list[Change]]:
    """Return the number of rows of the file, and the changes to its columns."""
    same = set() if file.tells_types else {str(name) for name in frame.columns if _is_whole_text(frame[name])}
    watched = {
        str(name): _Watch(column=str(name), series=_trained(frame, name), tells_types=file.tells_types)
        for name in frame.columns
        if name not in same
    }
    start = 0
    for batch in reader(replace(file, dropped=file.dropped | same)):
        for name in batch.schema.names:
            if name in watched:
                watched[name].see(batch.column(name), start)
        start += batch.num_rows
    return start, [change for watch in watched.values() if (change := watch.change()) is not None]


def _is_whole_text(series: pd.Series[Any]) -> bool:
    """Tell whether a text table's column was read as it is written: as texts, of which none became null."""
    return series.dtype == object and not series.hasnans


def _trained(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column as it is trained: nested values as JSON, pandas' own types as numpy types."""
    series = frame[name]
    if series.dtype == object and _holds_lists(series):
        (column,) = distinct_columns(to_arrow(frame[[name]]))
        return pd.Series(np.asarray(column.texts, object)[column.codes])
    return series if isinstance(series.dtype, np.dtype) else to_arrow(frame[[name]]).column(0).to_pandas()


def _holds_lists(series: pd.Series[Any]) -> bool:
    """Tell whether some cells are lists or objects; a column of texts alone is told by a glance."""
    kind = pd.api.types.infer_dtype(series, skipna=True)
    return kind == "mixed" and bool(series.map(pd.api.types.is_list_like).any())


@dataclass(kw_only=True, slots=True)
class _Watch:
    """The comparison of one column, batch by batch."""

    column: str
    series: pd.Series[Any]
    tells_types: bool
    """Whether the file states which cells are texts."""
    cells: Counter[What] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    sketch: Sketch = field(default_factory=Sketch)
    has_fractions: bool = False

    def see(self, raw: pa.Array, start: int) -> None:
        """Compare some cells with the table's rows from ``start`` on."""
        raw = decoded(raw)
        trained = self.series.iloc[start : start + len(raw)]
        if len(trained) < len(raw):
            raise pa.ArrowInvalid("the file has other rows than the table")
        if types.is_decimal(raw.type) or trained.dtype.kind in "iuf":
            self._see_numbers(raw, trained)
        elif is_text(raw.type) and trained.dtype == object:
            self._see_texts(raw, trained)
        elif types.is_nested(raw.type):
            self._see_nested(raw, trained)

    def change(self) -> Change | None:
        """Return the changes seen so far; ``None`` if there are none."""
        if not any(self.cells.values()):
            return None
        distinct, trained = self.sketch.distinct()
        lost = trained < distinct * (1 - FEW if self.has_fractions else 1)
        return Change(
            column=self.column,
            cells={what: self.cells[what] for what in What if self.cells[what]},
            words=tuple(word for word, _ in self.words.most_common(_SHOWN_WORDS)),
            distinct=distinct if lost else None,
            trained=trained if lost else None,
        )

    def _see_texts(self, raw: pa.Array, trained: pd.Series[Any]) -> None:
        """Count the texts that became null; all others are trained as they are."""
        null = trained.isna().to_numpy()
        if not null.any():
            return
        found, became = raw.filter(pa.array(null)), trained[null]
        nulled = found.fill_null("").to_numpy(zero_copy_only=False) != ""
        if nulled.any():
            self._count_nulled(Numerals.of(found.filter(pa.array(nulled)), became[nulled]))

    def _see_nested(self, raw: pa.Array, trained: pd.Series[Any]) -> None:
        """Compare lists and objects by the content of their JSON."""
        written, texts = exact_texts(raw.to_pylist()), trained.tolist()
        pairs = zip(written, texts, strict=True)
        # Python takes 1, 1.0 and true for equal, so integers are compared as text.
        load = partial(json.loads, parse_int=str)
        changed = np.asarray([one != other and load(one) != load(other) for one, other in pairs])
        self.cells[What.NESTED] += int(changed.sum())
        trained_as = hashes(np.asarray(texts, object))
        self.sketch.add(np.where(changed, hashes(np.asarray(written, object)), trained_as), trained_as)

    def _see_numbers(self, raw: pa.Array, trained: pd.Series[Any]) -> None:
        if types.is_boolean(raw.type):
            self.cells[What.FLAGS] += len(raw) - raw.null_count
        elif is_numeral(raw.type):
            self._compare(Numerals.of(raw, trained), raw.type)

    def _compare(self, found: Numerals, kind: pa.DataType) -> None:
        unchanged = found.unchanged
        letters = found.where(unchanged).trained
        self.sketch.add(letters, letters)
        changed = found.where(~unchanged & ~found.empty)
        null = changed.where(changed.missing)
        infinite = null.infinite
        self.cells[What.INFINITE] += null.where(infinite).count
        self._count_nulled(null.where(~infinite))
        numbers = changed.where(~changed.missing)
        self.sketch.add(numbers.keys(), numbers.trained)
        self.has_fractions |= bool(numbers.fractions.any())
        self.cells.update(_numbers(numbers, kind))
        if is_text(kind) and self.tells_types:
            self.cells[What.QUOTED] += found.where(~found.missing).count

    def _count_nulled(self, words: Numerals) -> None:
        self.cells[What.NULLED] += words.count
        self.words.update(dict(zip(words.raw.to_pylist(), words.rows.tolist(), strict=True)))


def _numbers(changed: Numerals, kind: pa.DataType) -> dict[What, int]:
    """Return the number of cells for each way in which numbers change."""
    same, longer = changed.same, changed.longer
    masks = {What.ROUNDED: ~same & ~longer, What.NOISE: ~same & longer}
    if is_text(kind):
        masks |= {What.ZEROS: changed.zeros, What.SIGNS: changed.signs}
        masks |= {What.SPACES: changed.spaces, What.POWERS: changed.codes}
    if is_text(kind) or types.is_decimal(kind):
        masks |= {What.ENDS: same & changed.ends}
    if not types.is_floating(kind):
        masks[What.WHOLE] = changed.whole & changed.floats
    return {what: changed.where(mask).count for what, mask in masks.items()}
