"""Micro-batches of an optimizer step: by tokens, long rows together, none of it visible in the gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from datasets import Dataset

from nss_train.model.tokenizer import IGNORED_LABEL

EXAMPLE_COLUMNS = ("input_ids", "labels")
PADDING = 0
"""Token behind the end of a row. Any would do: no learned token sees what is right of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """The largest micro-batch, in rows and in tokens, padding included. A single row may have more tokens."""

    rows: int
    tokens: int
    multiple: int = 1
    """Divisor of each width in tokens: few widths fragment a device's memory less."""

    def width(self, tokens: int) -> int:
        """Return the width of a micro-batch whose longest row has so many tokens."""
        return -(-tokens // self.multiple) * self.multiple

    def halved(self) -> Room | None:
        """Return half of the room; ``None`` for a single row."""
        if self.rows == 1:
            return None
        rows = self.rows // 2
        return Room(rows=rows, tokens=max(1, self.tokens // 2), multiple=self.multiple)

    def parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the numbers of the rows of each micro-batch: the longest first, as many as there is room."""
        found: list[list[int]] = []
        width = 0
        for number in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
            last = found[-1] if found else []
            if not last or len(last) >= self.rows or (len(last) + 1) * width > self.tokens:
                width = self.width(lengths[number])
                found.append([])
            found[-1].append(number)
        if len(found) > 1 and len(found[-1]) == 1 and len(found[-2]) > 2:
            # A single row is computed apart: several share their kernels.
            found[-1].insert(0, found[-2].pop())
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A row of training tokens; both of shape (tokens,)."""

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @property
    def learned(self) -> int:
        """Return the number of tokens that are learned; the first one has nothing before it."""
        return int((self.labels[1:] != IGNORED_LABEL).sum())


def lengths_of(examples: Dataset) -> npt.NDArray[np.int64]:
    """Return the number of tokens of each example; shape (examples,)."""
    ids = examples.with_format("arrow")["input_ids"]
    return np.asarray(pc.list_value_length(ids[:]), dtype=np.int64)


def as_examples(rows: Sequence[Mapping[str, npt.NDArray[np.int64]]]) -> list[Example]:
    """Return rows of a data set as examples; a data loader collates with it."""
    return [Example(input_ids=row["input_ids"], labels=row["labels"]) for row in rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Rows padded on the right, on one device."""

    input_ids: torch.Tensor
    """Shape (rows, tokens)."""
    labels: torch.Tensor
    """Labels of the tokens at the same place; -100 where nothing is learned; shape (rows, tokens)."""
    attention_mask: torch.Tensor
    """1 for tokens, 0 for padding; shape (rows, tokens)."""
    learned: torch.Tensor
    """The flat places of the tokens before learned ones; shape (learned,)."""
    targets: torch.Tensor
    """The learned tokens; shape (learned,)."""


def micro_batches(examples: Sequence[Example], room: Room, *, device: torch.device) -> Iterator[MicroBatch]:
    """Yield the examples of a step as micro-batches on the device, without waiting for it."""
    for rows in room.parts([len(example.input_ids) for example in examples]):
        yield _micro_batch([examples[row] for row in rows], room, device)


def _micro_batch(rows: list[Example], room: Room, device: torch.device) -> MicroBatch:
    shape = (len(rows), room.width(max(len(row.input_ids) for row in rows)))
    ids, labels = np.full(shape, PADDING), np.full(shape, IGNORED_LABEL)
    mask = np.zeros(shape, dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row.input_ids)] = row.input_ids
        labels[place, : len(row.labels)] = row.labels
        mask[place, : len(row.input_ids)] = 1
    row_of, before = np.nonzero(labels[:, 1:] != IGNORED_LABEL)
    return MicroBatch(
        input_ids=_on(device, ids),
        labels=_on(device, labels),
        attention_mask=_on(device, mask),
        learned=_on(device, row_of * shape[1] + before),
        targets=_on(device, labels[row_of, before + 1]),
    )


def _on(device: torch.device, values: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return a tensor on the device. Pinned memory lets the copy run beside the computation."""
    there = torch.from_numpy(values)
    return there if device.type == "cpu" else there.pin_memory().to(device, non_blocking=True)
