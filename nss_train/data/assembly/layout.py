"""The records of each sequence, and the sequences of each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nss_train.data.ragged import Offsets, gather, offsets_of

Order = npt.NDArray[np.int64]
"""Array of record numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The examples as sequences of records; each sequence gets a begin and an end token."""

    rows: Order
    """Record numbers of all examples; shape (records used,)."""
    sequences: Offsets
    """Start of each sequence in ``rows``, and the end; shape (sequences + 1,)."""
    examples: Offsets
    """Start of each example in ``sequences``, and the end; shape (examples + 1,)."""

    def __len__(self) -> int:
        return len(self.examples) - 1

    @property
    def records_per_example(self) -> npt.NDArray[np.int64]:
        return np.diff(self.sequences[self.examples])

    @property
    def sequences_per_example(self) -> npt.NDArray[np.int64]:
        return np.diff(self.examples)


def one_sequence_each(rows: Order, ends: Sequence[int]) -> Layout:
    """Return examples of one sequence each, given where each ends in ``rows``."""
    sequences = np.asarray([0, *ends], dtype=np.int64)
    return Layout(rows=rows, sequences=sequences, examples=np.arange(len(sequences), dtype=np.int64))


def groups_as_sequences(
    rows: Order, offsets: Offsets, chosen: npt.NDArray[np.int64], ends: Sequence[int]
) -> Layout:
    """Return examples of whole groups: ``chosen`` groups in order, with examples that end after ``ends``."""
    used, lengths = gather(rows, offsets, chosen)
    return Layout(rows=used, sequences=offsets_of(lengths), examples=np.asarray([0, *ends], dtype=np.int64))
