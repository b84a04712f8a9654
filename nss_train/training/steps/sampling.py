"""The order of the examples, which does not depend on the number of ranks that share a batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class Shuffled(Sampler[int]):
    """A sampler of so many examples in an order by the seed."""

    def __init__(self, examples: int, *, seed: int) -> None:
        self._examples = examples
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        yield from torch.randperm(self._examples, generator=generator).tolist()

    def __len__(self) -> int:
        return self._examples
