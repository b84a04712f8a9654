"""The drawn units of a step as micro-batches: what fits into memory at once, little of it padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
        return rows <= self.rows and rows * tokens_per_row <= self.tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Whole units, padded on the right to the longest row."""

    input_ids: torch.Tensor
    """Shape (rows, tokens)."""
    attention_mask: torch.Tensor
    labels: torch.Tensor
    """Those of the same place in ``input_ids``; -100 where nothing is learned."""
    places: torch.Tensor
    """The unit of each row, counted within the micro-batch; shape (rows,)."""

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            places=self.places.to(device),
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
        """Units of similar length together, as many as there is room for; a unit is never cut."""
        longest = np.maximum.reduceat(self.lengths, self._offsets[:-1])
        chosen: list[int] = []
        rows = 0
        # The longest come first: what does not fit into memory fails at once.
        for unit in units[np.argsort(-longest[units], kind="stable")].tolist():
            size = int(self._offsets[unit + 1] - self._offsets[unit])
            if chosen and not room.has(rows + size, int(longest[chosen[0]])):
                yield self._batch(chosen)
                chosen, rows = [], 0
            chosen.append(unit)
            rows += size
        if chosen:
            yield self._batch(chosen)

    def _batch(self, units: list[int]) -> MicroBatch:
        spans = [range(self._offsets[unit], self._offsets[unit + 1]) for unit in units]
        found = self._examples[[row for span in spans for row in span]]
        sizes = torch.tensor([len(span) for span in spans])
        lengths = torch.tensor([len(ids) for ids in found["input_ids"]])
        return MicroBatch(
            input_ids=pad_sequence(list(found["input_ids"]), batch_first=True, padding_value=self._pad_id),
            attention_mask=(torch.arange(int(lengths.max())) < lengths[:, None]).long(),
            labels=pad_sequence(list(found["labels"]), batch_first=True, padding_value=IGNORED_LABEL),
            places=torch.repeat_interleave(torch.arange(len(units)), sizes),
        )


def read_units(path: Path) -> npt.NDArray[np.int64]:
    """The unit of each example, as prepare_data wrote it; shape (examples,), ascending."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return np.asarray(stream.read_all().column("unit"), dtype=np.int64)
