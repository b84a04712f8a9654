"""A private table as it is read: each record's own content, and nothing derived from several records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nss_train.config.sections.guarantee import ColumnType
from nss_train.data.tokenization.distinct_values import Codes, Column


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """The cells of a column as the file holds them, before any conversion."""

    codes: Codes
    """Index into ``cells`` for each place; shape (places,)."""
    cells: Sequence[bytes]
    """Distinct cells, in the order of the codes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateTable:
    """The places of a table. A record's texts are a function of its own cells and public declarations."""

    columns: tuple[Column, ...]
    """Columns in the file's order; null records have null in each."""
    types: Mapping[str, ColumnType]
    """Type that each column was read as: declared by the config or by the file's format, or ``any``."""
    null: npt.NDArray[np.bool_]
    """Places without effect: their record is empty or missing; shape (places,)."""
    raw: Mapping[str, Raw]
    """Cells that a record's identity is made from; its secret coin decides on its side of a split."""

    def __len__(self) -> int:
        """Return n, the number of places, with null records included. It is public."""
        return len(self.null)
