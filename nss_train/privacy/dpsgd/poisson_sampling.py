"""Poisson sampling: each unit takes part in a step by a coin toss of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.ranks.group import group_state

Indices = npt.NDArray[np.int64]


class PoissonSampler:
    """A sampler that draws each unit independently with probability ``rate``; a draw may be empty."""

    def __init__(self, *, units: int, rate: float, randomness: SecretRandomness) -> None:
        self._units = units
        self._rate = rate
        self._randomness = randomness

    def draw(self) -> Indices:
        """Return the numbers of a step's units, ascending, the same on every rank; shape (drawn,)."""
        mask = self._randomness.heads(self._units, self._rate)
        return np.flatnonzero(from_first_rank(torch.from_numpy(mask)).numpy())


def of_this_rank(units: Indices) -> Indices:
    """Return the part of a step's units that this rank computes."""
    state = group_state()
    return units[state.process_index :: state.num_processes]


def from_first_rank(values: torch.Tensor) -> torch.Tensor:
    """Return rank 0's values on every rank, on the device that they came from."""
    state = group_state()
    if state.num_processes == 1:
        return values
    there = values.to(state.device)
    torch.distributed.broadcast(there, src=0)
    return there.to(values.device)
