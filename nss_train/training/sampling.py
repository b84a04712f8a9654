"""The order of the examples, which does not depend on the number of ranks that share a batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler

_COLUMNS = ("input_ids", "attention_mask", "labels")
_IGNORED = -100


class Shuffled(Sampler[int]):
    """A sampler of the first ``real`` examples in an order by the seed, then the ``padding`` after them."""

    def __init__(self, *, real: int, padding: int, seed: int) -> None:
        self._real = real
        self._padding = padding
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        yield from torch.randperm(self._real, generator=generator).tolist()
        yield from range(self._real, len(self))

    def __len__(self) -> int:
        return self._real + self._padding


def padded(examples: Dataset, multiple: int) -> Dataset:
    """Return the examples, padded to a multiple of the number that the ranks take at a time.

    The padding has no learned token. Without it Accelerate would give some ranks an example a second
    time, and the last step would differ from that of a single rank.
    """
    missing = -len(examples) % multiple
    if missing == 0:
        return examples
    kept = examples.select_columns(list(_COLUMNS))
    empty = {"input_ids": kept[0]["input_ids"][:1], "attention_mask": [1], "labels": [_IGNORED]}
    return concatenate_datasets([kept, Dataset.from_list([empty] * missing, features=kept.features)])
