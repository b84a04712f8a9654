"""A table's rows as tokenized JSON Lines records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nss_train.data.ragged import gather, offsets_of
from nss_train.data.tokenization.distinct_values import Column
from nss_train.data.tokenization.fragments import (
    Fragments,
    Tokens,
    record_text,
    tokenize_columns,
    tokenize_privately,
)
from nss_train.model.tokenizer import ModelTokenizer

BEYOND = 2**40
"""Number of tokens that exceeds any limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Tokenized records, kept as fragments; a record's tokens are computed on request."""

    fragments: Fragments
    lengths: npt.NDArray[np.int64]
    """Tokens of each record, with its newline, or :data:`BEYOND` for a record that the model cannot read;
    shape (records,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def record(self, index: int) -> Tokens:
        """Return the ids of one record; shape (tokens,)."""
        return gather(self.fragments.ids, self.fragments.offsets, self.fragments.rows[index])[0]


def tokenize(columns: Sequence[Column], tokenizer: ModelTokenizer) -> Records:
    """Tokenize every row of a table."""
    fragments = tokenize_columns(columns, tokenizer)
    return Records(fragments=fragments, lengths=_summed(np.diff(fragments.offsets), fragments))


def tokenize_each(columns: Sequence[Column], tokenizer: ModelTokenizer, *, vocabulary: int) -> Records:
    """Tokenize every row of a private table independently of the others.

    ``vocabulary`` is the number of ids that the model has. A tokenizer may have more, or may not know what to
    do with a character: a record with such a text has :data:`BEYOND` tokens, so that it ends no job.
    """
    fragments = tokenize_privately(columns, tokenizer)
    lengths = _summed(np.diff(fragments.offsets), fragments)
    is_unknown = (fragments.ids < 0) | (fragments.ids >= vocabulary)
    unknown = offsets_of(is_unknown.astype(np.int64))
    lengths[_summed(np.diff(unknown[fragments.offsets]), fragments) > 0] = BEYOND
    return Records(fragments=fragments, lengths=lengths)


def _summed(of_fragment: npt.NDArray[np.int64], fragments: Fragments) -> npt.NDArray[np.int64]:
    """Return the sum of a number of each fragment over the fragments of each row; shape (rows,)."""
    found = np.zeros(len(fragments.rows), dtype=np.int64)
    for position in range(fragments.rows.shape[1]):
        found += of_fragment[fragments.rows[:, position]]
    return found


def record_texts(columns: Sequence[Column]) -> Iterator[str]:
    """Yield every record as text, with its newline."""
    return (record_text(columns, row) for row in range(len(columns[0].codes)))
