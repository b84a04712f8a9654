"""How many distinct values a column has before and after it is read, counted in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

Hashes = npt.NDArray[np.uint64]

EXACT = 1_000_000
"""Pairs up to which the counts are exact; beyond, those of a random part of the values stand for all."""


def hashes(values: npt.NDArray[np.object_] | npt.NDArray[np.float64]) -> Hashes:
    """A number of 64 bits for each value, the same for the same value."""
    return np.asarray(pd.util.hash_array(values, categorize=False), np.uint64)


@dataclass(kw_only=True, slots=True)
class Sketch:
    """Distinct pairs of a cell and what is trained of it.

    Where there are too many, only those are kept whose trained value falls into a part of all hashes: all
    cells that become one value are kept or left out together.
    """

    _pairs: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))
    _new: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _halvings: int = 0

    def add(self, cells: Hashes, trained: Hashes) -> None:
        """Count some more pairs."""
        self._new.append(np.stack([cells, trained], axis=1))
        if sum(map(len, self._new)) > EXACT // 2:
            self._merge()

    def distinct(self) -> tuple[int, int]:
        """Distinct cells, and distinct values of them."""
        self._merge()
        scale = 2**self._halvings
        cells, trained = (len(np.unique(self._pairs[:, side])) for side in (0, 1))
        return cells * scale, trained * scale

    def _merge(self) -> None:
        pairs = np.concatenate([self._pairs, *self._new])
        self._new.clear()
        pairs = self._sampled(pairs)
        _, first = np.unique(pairs[:, 0] ^ (pairs[:, 1] * np.uint64(0x9E3779B97F4A7C15)), return_index=True)
        self._pairs = pairs[first]
        while len(self._pairs) > EXACT:
            self._halvings += 1
            self._pairs = self._sampled(self._pairs)

    def _sampled(self, pairs: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        return pairs if self._halvings == 0 else pairs[pairs[:, 1] >> np.uint64(64 - self._halvings) == 0]
