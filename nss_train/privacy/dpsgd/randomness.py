"""Unrepeatable randomness, from which sampling and noise are drawn."""

from __future__ import annotations

import os
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
from randomgen import ChaCha

KEY_BYTES = 32
ROUNDS = 20
"""Rounds of ChaCha: the number for which no attack is known."""


class SecretRandomness:
    """ChaCha20 under a key from the operating system.

    The key is in this process's memory and nowhere else: it is not a seed of the job, it is never logged,
    and it cannot be stored, so an attempt that resumes from a checkpoint draws anew. Torch's own generator
    would not do: on a CPU it keeps 32 bits of its seed.
    """

    def __init__(self) -> None:
        key = int.from_bytes(os.urandom(KEY_BYTES), "little")
        self._generator = np.random.Generator(ChaCha(key=key, rounds=ROUNDS))

    def heads(self, count: int, probability: float) -> npt.NDArray[np.bool_]:
        """Return ``count`` independent coin tosses; shape (count,)."""
        return self._generator.random(count) < probability

    def gaussian(self, count: int) -> npt.NDArray[np.float64]:
        """Return standard normal values in double precision; shape (count,)."""
        return self._generator.standard_normal(count)

    def fill_gaussian(self, values: npt.NDArray[np.float64]) -> None:
        """Overwrite ``values`` with standard normal ones; other threads run meanwhile."""
        self._generator.standard_normal(out=values)

    def another(self) -> Self:
        """Return a source of the same kind under a key of its own."""
        return type(self)()

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret randomness is never stored")
