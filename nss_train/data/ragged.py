"""Slices of different lengths in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]


def offsets_of(lengths: npt.NDArray[np.int64] | list[int]) -> Offsets:
    """Return where slices of these lengths begin, and where the last one ends; shape (slices + 1,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def gather(
    values: npt.NDArray[Any], offsets: Offsets, wanted: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Concatenate the slices ``values[offsets[i]:offsets[i + 1]]`` of all wanted ``i``, with lengths."""
    starts = offsets[wanted]
    lengths = offsets[wanted + 1] - starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    positions = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return values[positions], lengths
