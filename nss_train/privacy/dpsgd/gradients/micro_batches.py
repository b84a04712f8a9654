"""The drawn units of a step as micro-batches, whose shapes reveal nothing about the other units drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from datasets import Dataset

from nss_train.model.tokenizer import IGNORED_LABEL
from nss_train.privacy.dpsgd.poisson_sampling import Indices

FILLER = -1
"""Unit number of a filler row, which belongs to no unit."""
NARROWEST = 16
WIDTH_STEP = 2**0.25
"""Ratio of each width to the next narrower one: rows are 9% padding on average."""
_MULTIPLE = 8
"""Divisor of all widths, in tokens; matrix products of other sizes are slower."""


@dataclass(frozen=True)
class Shapes:
    """The shapes of all micro-batches: one for each width. They follow from public numbers."""

    longest: int
    """Most tokens that a row may have."""
    tokens: int
    """Most tokens of a micro-batch, padding and filler included; a single row may have more."""
    rows: int

    @cached_property
    def widths(self) -> npt.NDArray[np.int64]:
        """Return the widths of rows in tokens, ascending up to the longest."""
        found = [float(NARROWEST)]
        while found[-1] < self.longest:
            found.append(found[-1] * WIDTH_STEP)
        steps = _MULTIPLE * np.ceil(np.asarray(found) / _MULTIPLE)
        return np.unique(np.minimum(steps, max(self.longest, 1)).astype(np.int64))

    def widths_of(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the narrowest width for each length, in the shape of ``lengths``."""
        return self.widths[np.searchsorted(self.widths, lengths)]

    def rows_at(self, width: int) -> int:
        """Return the rows of a micro-batch of this width."""
        return max(1, min(self.rows, self.tokens // width))


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Whole units, or a part of one, plus filler; padded on the right.

    There is no attention mask: attention is causal, so no token sees the padding after it, and a mask of
    ones alone would be computed differently from one with zeros.
    """

    input_ids: torch.Tensor
    """Shape (rows, tokens)."""
    labels: torch.Tensor
    """Labels of the tokens at the same place in ``input_ids``; -100 where nothing is learned."""
    places: torch.Tensor
    """The place of each row's unit among the units of the micro-batch, on the CPU; shape (rows,).

    Each filler row has a place of its own after them."""
    units: npt.NDArray[np.int64]
    """The number of each row's unit, or :data:`FILLER`; shape (rows,)."""
    learned: torch.Tensor
    """Learned tokens of each row's whole unit, rows in other parts included; shape (rows,)."""
    tokens: int
    """Tokens of the rows, without padding and filler."""
    prompt: int
    """Tokens at the beginning of each row that are not learned."""
    ends: bool = True
    """``True`` if its units end with it; if not, the next micro-batch continues the same unit."""

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            input_ids=_sent(self.input_ids, device),
            labels=_sent(self.labels, device),
            places=self.places,
            units=self.units,
            learned=_sent(self.learned, device),
            tokens=self.tokens,
            prompt=self.prompt,
            ends=self.ends,
        )


class UnitExamples:
    """The examples of each unit of privacy that has any."""

    def __init__(
        self, examples: Dataset, unit_of: npt.NDArray[np.int64], *, pad_id: int, prompt: int | None = None
    ) -> None:
        """Group the examples by ``unit_of``, their units' numbers: ascending, possibly with gaps."""
        self._examples = examples.with_format("numpy", columns=["input_ids", "labels"])
        _, firsts = np.unique(unit_of, return_index=True)
        self._offsets = np.append(firsts, len(unit_of)).astype(np.int64)
        self._pad_id = pad_id
        self.lengths = np.asarray([len(ids) for ids in examples["input_ids"]], dtype=np.int64)
        """Tokens of each example."""
        self._longest = np.maximum.reduceat(self.lengths, firsts) if len(firsts) else self.lengths
        self.prompt = self._prompt() if prompt is None else prompt
        """Number of tokens that begin each example and are not learned: the columns' names."""

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self._offsets) - 1

    def micro_batches(self, units: Indices, shapes: Shapes) -> Iterator[MicroBatch]:
        """Yield units of one width together, in the given order; a larger one alone, in parts.

        The longest come first. A unit's width depends on its own longest row, and a micro-batch's number of
        rows on the width. A unit with a row longer than allowed has no effect.
        """
        units = units[self._longest[units] <= shapes.longest]
        widths = shapes.widths_of(self._longest[units])
        for width in np.unique(widths)[::-1].tolist():
            yield from self._of_width(units[widths == width], width, shapes.rows_at(width))

    def rows_alone(self, unit: int) -> Iterator[MicroBatch]:
        """Yield each row of a unit as a micro-batch of its own, without padding."""
        whole = range(self._offsets[unit], self._offsets[unit + 1])
        found = self._examples[list(whole)]
        for ids, labels in zip(found["input_ids"], found["labels"], strict=True):
            yield MicroBatch(
                input_ids=torch.tensor(ids[None]),
                labels=torch.tensor(labels[None]),
                places=torch.zeros(1, dtype=torch.int64),
                units=np.asarray([unit]),
                learned=torch.tensor([int((labels != IGNORED_LABEL).sum())]),
                tokens=len(ids),
                prompt=self.prompt,
            )

    def _of_width(self, units: Indices, width: int, rows: int) -> Iterator[MicroBatch]:
        chosen: list[int] = []
        taken = 0
        for unit in units.tolist():
            size = int(self._offsets[unit + 1] - self._offsets[unit])
            if chosen and taken + size > rows:
                yield from self._batches(chosen, width, rows)
                chosen, taken = [], 0
            chosen.append(unit)
            taken += size
        if chosen:
            yield from self._batches(chosen, width, rows)

    def _batches(self, units: list[int], width: int, rows: int) -> Iterator[MicroBatch]:
        """Yield one micro-batch, or several parts of a single unit that is too large for one."""
        spans = [range(self._offsets[unit], self._offsets[unit + 1]) for unit in units]
        numbers = [row for span in spans for row in span]
        found = self._examples[numbers]
        owners = np.repeat(units, [len(span) for span in spans])
        learned = [int((labels != IGNORED_LABEL).sum()) for labels in found["labels"]]
        of_unit = {unit: sum(learned[at] for at in np.flatnonzero(owners == unit)) for unit in units}
        for first in range(0, len(numbers), rows):
            part = slice(first, first + rows)
            mine = owners[part]
            filler = rows - len(mine)
            yield MicroBatch(
                input_ids=_padded(found["input_ids"][part], (rows, width), self._pad_id),
                labels=_padded(found["labels"][part], (rows, width), IGNORED_LABEL),
                places=torch.from_numpy(_places(mine, rows)),
                units=np.append(mine, np.full(filler, FILLER)),
                learned=torch.tensor([of_unit[unit] for unit in mine.tolist()] + [1] * filler),
                tokens=int(self.lengths[numbers[part]].sum()),
                prompt=self.prompt,
                ends=part.stop >= len(numbers),
            )

    def _prompt(self) -> int:
        """Return the number of tokens of the prompt that all examples share."""
        if not len(self.lengths):
            return 0
        labels = self._examples[:1]["labels"][0]
        return int(np.argmax(labels != IGNORED_LABEL))


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the values on the device, without waiting for what a GPU still has to do."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _padded(rows: list[npt.NDArray[np.int64]], shape: tuple[int, int], value: int) -> torch.Tensor:
    found = np.full(shape, value, dtype=np.int64)
    for row, values in zip(found, rows, strict=False):
        row[: len(values)] = values
    return torch.from_numpy(found)


def _places(owners: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Return the place of each row's unit, counted from 0, and one per filler row; shape (rows,)."""
    changes = np.ones(rows, dtype=np.int64)
    changes[: len(owners)] = np.append(1, np.diff(owners) != 0)[: len(owners)]
    return np.cumsum(changes) - 1


def read_units(path: Path) -> npt.NDArray[np.int64]:
    """Return the unit of each example, as prepare_data wrote it; shape (examples,), ascending."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return np.asarray(stream.read_all().column("unit"), dtype=np.int64)
