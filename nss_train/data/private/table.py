"""A private table as it is read: what each record says of itself, and nothing that they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nss_train.config.guarantee import ColumnType
from nss_train.data.tokenization.distinct_values import Codes, Column


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """A column's cells as the file holds them, before anything is made of them."""

    codes: Codes
    """Shape (places,)."""
    cells: Sequence[bytes]
    """Distinct cells; each code's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateTable:
    """The places of a table. A record's texts are a function of its own cells and public declarations."""

    columns: tuple[Column, ...]
    """In the file's order; null records have null in each."""
    types: Mapping[str, ColumnType]
    """How each column was read: as declared, as the file's format declares it, or ``any``."""
    null: npt.NDArray[np.bool_]
    """Places without effect: their record is empty, or no record; shape (places,)."""
    raw: Mapping[str, Raw]
    """From which a record's identity is made: whose secret coin decides on its side of a split."""

    def __len__(self) -> int:
        """n: places, null records included. It is public."""
        return len(self.null)
