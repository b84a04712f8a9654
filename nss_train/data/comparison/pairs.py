"""The number of distinct values of a column before and after reading, counted in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

Hashes = npt.NDArray[np.uint64]

EXACT = 1_000_000
"""Most pairs that are counted exactly; beyond it, counts are extrapolated from a part of the values."""


def hashes(values: npt.NDArray[np.object_] | npt.NDArray[np.float64]) -> Hashes:
    """Return a 64-bit hash of each value."""
    return np.asarray(pd.util.hash_array(values, categorize=False), np.uint64)


@dataclass(kw_only=True, slots=True)
class Sketch:
    """The distinct pairs of a cell and its trained value.

    If there are too many, only those are kept whose trained value falls into a part of all hashes: all
    cells that become one value are kept or left out together.
    """

    _pairs: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))
    _new: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _halvings: int = 0

    def add(self, cells: Hashes, trained: Hashes) -> None:
        """Add some pairs."""
        self._new.append(np.stack([cells, trained], axis=1))
        if sum(map(len, self._new)) > EXACT // 2:
            self._merge()

    def distinct(self) -> tuple[int, int]:
        """Return the number of distinct cells, and of distinct trained values."""
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
