"""A table's rows as tokenized JSON Lines records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nss_train.data.ragged import gather
from nss_train.data.tokenization.distinct_values import Column
from nss_train.data.tokenization.fragments import (
    Fragments,
    Tokens,
    record_text,
    tokenize_columns,
    tokenize_privately,
)
from nss_train.model.tokenizer import ModelTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Tokenized records, kept as fragments; a record's tokens are computed on request."""

    fragments: Fragments
    lengths: npt.NDArray[np.int64]
    """Tokens of each record, with its newline; shape (records,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def record(self, index: int) -> Tokens:
        """Return the ids of one record; shape (tokens,)."""
        return gather(self.fragments.ids, self.fragments.offsets, self.fragments.rows[index])[0]


def tokenize(columns: Sequence[Column], tokenizer: ModelTokenizer, *, private: bool = False) -> Records:
    """Tokenize every row of a table; if ``private``, each row independently of the others."""
    fragments = (tokenize_privately if private else tokenize_columns)(columns, tokenizer)
    lengths = np.zeros(len(fragments.rows), dtype=np.int64)
    sizes = np.diff(fragments.offsets)
    for position in range(fragments.rows.shape[1]):
        lengths += sizes[fragments.rows[:, position]]
    return Records(fragments=fragments, lengths=lengths)


def record_texts(columns: Sequence[Column]) -> Iterator[str]:
    """Yield every record as text, with its newline."""
    return (record_text(columns, row) for row in range(len(columns[0].codes)))
