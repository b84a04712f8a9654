"""Which units take part in a step: each of them by a coin of its own (Poisson sampling)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.group import group_state

Indices = npt.NDArray[np.int64]


class PoissonSampler:
    """Draws units, each independently with probability ``rate``; none at all is a draw like any other."""

    def __init__(self, *, units: int, rate: float, randomness: SecretRandomness) -> None:
        self._units = units
        self._rate = rate
        self._randomness = randomness

    def draw(self) -> Indices:
        """Numbers of the units of a step, ascending, the same on every rank; shape (drawn,)."""
        mask = self._randomness.heads(self._units, self._rate)
        return np.flatnonzero(from_first_rank(torch.from_numpy(mask)).numpy())


def from_first_rank(values: torch.Tensor) -> torch.Tensor:
    """Rank 0's values on every rank, back on the device that they came from."""
    state = group_state()
    if state.num_processes == 1:
        return values
    there = values.to(state.device)
    torch.distributed.broadcast(there, src=0)
    return there.to(values.device)
