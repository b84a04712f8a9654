"""Columns of cells as codes into their distinct cells, collected one part of the table at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from nss_train.config.sections.guarantee import ColumnType
from nss_train.data.private.table import Raw


class Fault(StrEnum):
    """The reason why a place of a file holds no record; :attr:`AsRead.faults` numbers them in this order."""

    NONE = "none"
    EMPTY = "empty"
    TOO_LONG = "longer than a line may be"
    NOT_UTF8 = "not UTF-8 text"
    STRAY_QUOTE = "a stray quote"
    OPEN_QUOTE = "a quote that is not closed on its line"
    SURPLUS = "more fields than the header"
    TOO_DEEP = "nested too deep"
    NOT_JSON = "not JSON"
    NOT_OBJECT = "JSON, but no object"


NUMBER_OF = {fault: number for number, fault in enumerate(Fault)}


@dataclass(frozen=True, kw_only=True, slots=True)
class AsRead:
    """A table as its file holds it: its cells, and the places that hold no record."""

    columns: Mapping[str, Raw]
    """Cells by column, in the file's order."""
    types: Mapping[str, ColumnType]
    """Types that the file's format declares; empty if it declares none."""
    faults: npt.NDArray[np.int8]
    """Number of each place's fault; a place with a fault has no cells; shape (places,)."""


class Coder(dict[Hashable, int]):
    """A collector of one column, which numbers distinct cells in order of appearance."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int32]] = []

    def __missing__(self, cell: Hashable) -> int:
        self[cell] = number = len(self)
        return number

    def add(self, cells: Iterable[Hashable], codes: npt.NDArray[np.int32] | None = None) -> None:
        """Append cells or, with ``codes`` into ``cells``, the places that they describe."""
        numbers = np.fromiter(map(self.__getitem__, cells), dtype=np.int32)
        self._parts.append(numbers if codes is None else numbers[codes])

    def raw(self, as_bytes: Callable[[Any], bytes] = lambda cell: cell) -> Raw:
        """Return the column; ``as_bytes`` is called once per distinct cell and must keep them distinct."""
        codes = np.concatenate([np.zeros(0, dtype=np.int32), *self._parts])
        return Raw(codes=codes, cells=[as_bytes(cell) for cell in self])
