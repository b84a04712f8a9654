"""The drawn units of a step as micro-batches: what fits into memory at once, little of it padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from nss_train.privacy.sampling import Indices

IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a micro-batch may hold."""

    tokens: int
    """Padding included."""
    rows: int

    def has(self, rows: int, tokens_per_row: int) -> bool:
        return rows <= self.most(tokens_per_row)

    def most(self, tokens_per_row: int) -> int:
        """Rows of this length that fit."""
        return min(self.rows, self.tokens // tokens_per_row)


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Whole units, or a part of one; padded on the right to the longest row."""

    input_ids: torch.Tensor
    """Shape (rows, tokens)."""
    attention_mask: torch.Tensor
    labels: torch.Tensor
    """Those of the same place in ``input_ids``; -100 where nothing is learned."""
    places: torch.Tensor
    """The unit of each row, counted within the micro-batch; shape (rows,)."""
    learned: torch.Tensor
    """Learned tokens of all rows of each row's unit, also of those in other parts; shape (rows,)."""
    ends: bool = True
    """Whether its units end with it; if not, the next one goes on with the same unit."""

    def to(self, device: torch.device) -> MicroBatch:
        return self._each(lambda tensor: tensor.to(device), ends=self.ends)

    def parts(self, rows: int) -> Iterator[MicroBatch]:
        """So many rows at a time, each as wide as the whole."""
        for first in range(0, len(self.places), rows):
            part = slice(first, first + rows)
            yield self._each(itemgetter(part), ends=part.stop >= len(self.places))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor], *, ends: bool) -> MicroBatch:
        return MicroBatch(
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            labels=change(self.labels),
            places=change(self.places),
            learned=change(self.learned),
            ends=ends,
        )


class UnitExamples:
    """The examples of each unit of privacy."""

    def __init__(self, examples: Dataset, unit_of: npt.NDArray[np.int64], *, pad_id: int) -> None:
        self._examples = examples.with_format("torch", columns=["input_ids", "labels"])
        self._offsets = np.searchsorted(unit_of, np.arange(int(unit_of[-1]) + 2))
        self._pad_id = pad_id
        self.lengths = np.asarray([len(ids) for ids in examples["input_ids"]], dtype=np.int64)
        """Tokens of each example."""

    def __len__(self) -> int:
        """Units."""
        return len(self._offsets) - 1

    def micro_batches(self, units: Indices, room: Room) -> Iterator[MicroBatch]:
        """Units of similar length together, as many as there is room for; a larger one alone, in parts."""
        longest = np.maximum.reduceat(self.lengths, self._offsets[:-1])
        chosen: list[int] = []
        rows = 0
        # The longest come first: what does not fit into memory fails at once.
        for unit in units[np.argsort(-longest[units], kind="stable")].tolist():
            size = int(self._offsets[unit + 1] - self._offsets[unit])
            if chosen and not room.has(rows + size, int(longest[chosen[0]])):
                yield from self._batch(chosen, room)
                chosen, rows = [], 0
            chosen.append(unit)
            rows += size
        if chosen:
            yield from self._batch(chosen, room)

    def _batch(self, units: list[int], room: Room) -> Iterator[MicroBatch]:
        """One; several only of a single unit that is too large for one."""
        whole = self._whole(units)
        yield from whole.parts(max(1, room.most(whole.input_ids.shape[1])))

    def _whole(self, units: list[int]) -> MicroBatch:
        spans = [range(self._offsets[unit], self._offsets[unit + 1]) for unit in units]
        found = self._examples[[row for span in spans for row in span]]
        sizes = torch.tensor([len(span) for span in spans])
        lengths = torch.tensor([len(ids) for ids in found["input_ids"]])
        places = torch.repeat_interleave(torch.arange(len(units)), sizes)
        labels = pad_sequence(list(found["labels"]), batch_first=True, padding_value=IGNORED_LABEL)
        return MicroBatch(
            input_ids=pad_sequence(list(found["input_ids"]), batch_first=True, padding_value=self._pad_id),
            attention_mask=(torch.arange(int(lengths.max())) < lengths[:, None]).long(),
            labels=labels,
            places=places,
            learned=learned_tokens(labels, places),
        )


def learned_tokens(labels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Of each row's unit; shape (rows,)."""
    of_row = (labels != IGNORED_LABEL).sum(1)
    return torch.zeros_like(of_row).index_add_(0, places, of_row)[places]


def read_units(path: Path) -> npt.NDArray[np.int64]:
    """The unit of each example, as prepare_data wrote it; shape (examples,), ascending."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return np.asarray(stream.read_all().column("unit"), dtype=np.int64)
