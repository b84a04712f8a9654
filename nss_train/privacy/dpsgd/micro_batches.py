"""The drawn units of a step as micro-batches, whose shapes tell nothing of who else was drawn."""

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

from nss_train.privacy.dpsgd.poisson_sampling import Indices

IGNORED_LABEL = -100
FILLER = -1
"""Number of the unit of a row that is nobody's."""
NARROWEST = 16
WIDTH_STEP = 2**0.25
"""Each width is so many times the next narrower one: rows are 9% padding on average."""
_MULTIPLE = 8
"""Tokens; matrix products of other sizes are slower."""


@dataclass(frozen=True)
class Shapes:
    """The shapes of all micro-batches: one for each width, public like what they are made of."""

    longest: int
    """Tokens of the longest row that there may be."""
    tokens: int
    """Of a micro-batch, padding and filler included; a single row may have more."""
    rows: int

    @cached_property
    def widths(self) -> npt.NDArray[np.int64]:
        """Tokens of a row, ascending up to the longest."""
        found = [float(NARROWEST)]
        while found[-1] < self.longest:
            found.append(found[-1] * WIDTH_STEP)
        steps = _MULTIPLE * np.ceil(np.asarray(found) / _MULTIPLE)
        return np.unique(np.minimum(steps, max(self.longest, 1)).astype(np.int64))

    def widths_of(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The narrowest width for each length; of the shape of ``lengths``."""
        return self.widths[np.searchsorted(self.widths, lengths)]

    def rows_at(self, width: int) -> int:
        """Rows of a micro-batch of this width."""
        return max(1, min(self.rows, self.tokens // width))


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Whole units, or a part of one, and filler; padded on the right.

    There is no attention mask: attention is causal, so that no token sees the padding behind it, and a
    mask of ones alone would be computed in another way than one with zeros.
    """

    input_ids: torch.Tensor
    """Shape (rows, tokens)."""
    labels: torch.Tensor
    """Those of the same place in ``input_ids``; -100 where nothing is learned."""
    places: torch.Tensor
    """The place of each row's unit among the units of the micro-batch, on the CPU; shape (rows,).

    Each filler row has a place of its own behind them."""
    units: npt.NDArray[np.int64]
    """The number of each row's unit, or :data:`FILLER`; shape (rows,)."""
    learned: torch.Tensor
    """Learned tokens of all rows of each row's unit, also of those in other parts; shape (rows,)."""
    tokens: int
    """Of the rows, without padding and filler."""
    prompt: int
    """Tokens at the beginning of each row that are not learned."""
    ends: bool = True
    """Whether its units end with it; if not, the next one goes on with the same unit."""

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            input_ids=self.input_ids.to(device),
            labels=self.labels.to(device),
            places=self.places,
            units=self.units,
            learned=self.learned.to(device),
            tokens=self.tokens,
            prompt=self.prompt,
            ends=self.ends,
        )


class UnitExamples:
    """The examples of each unit of privacy that has any."""

    def __init__(
        self, examples: Dataset, unit_of: npt.NDArray[np.int64], *, pad_id: int, prompt: int | None = None
    ) -> None:
        """``unit_of`` numbers the units of the examples, ascending; it may leave numbers out."""
        self._examples = examples.with_format("numpy", columns=["input_ids", "labels"])
        _, firsts = np.unique(unit_of, return_index=True)
        self._offsets = np.append(firsts, len(unit_of)).astype(np.int64)
        self._pad_id = pad_id
        self.lengths = np.asarray([len(ids) for ids in examples["input_ids"]], dtype=np.int64)
        """Tokens of each example."""
        self._longest = np.maximum.reduceat(self.lengths, firsts) if len(firsts) else self.lengths
        self.prompt = self._prompt() if prompt is None else prompt
        """Tokens that each example begins with and that are not learned: the columns' names."""

    def __len__(self) -> int:
        """Units."""
        return len(self._offsets) - 1

    def micro_batches(self, units: Indices, shapes: Shapes) -> Iterator[MicroBatch]:
        """Units of one width together, in the given order; a larger one alone, in parts.

        The longest come first. What width a unit has depends on its own longest row, and how many rows a
        micro-batch has on the width. A unit with a longer row than there may be is without effect.
        """
        units = units[self._longest[units] <= shapes.longest]
        widths = shapes.widths_of(self._longest[units])
        for width in np.unique(widths)[::-1].tolist():
            yield from self._of_width(units[widths == width], width, shapes.rows_at(width))

    def rows_alone(self, unit: int) -> Iterator[MicroBatch]:
        """Each row of a unit as a micro-batch of its own, without padding."""
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
        """One; several only of a single unit that is too large for one."""
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
        """Tokens of the first example's prompt; each example has the same."""
        if not len(self.lengths):
            return 0
        labels = self._examples[:1]["labels"][0]
        return int(np.argmax(labels != IGNORED_LABEL))


def _padded(rows: list[npt.NDArray[np.int64]], shape: tuple[int, int], value: int) -> torch.Tensor:
    found = np.full(shape, value, dtype=np.int64)
    for row, values in zip(found, rows, strict=False):
        row[: len(values)] = values
    return torch.from_numpy(found)


def _places(owners: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Of each row's unit, counted from 0 in their order, and one for each filler row; shape (rows,)."""
    changes = np.ones(rows, dtype=np.int64)
    changes[: len(owners)] = np.append(1, np.diff(owners) != 0)[: len(owners)]
    return np.cumsum(changes) - 1


def read_units(path: Path) -> npt.NDArray[np.int64]:
    """The unit of each example, as prepare_data wrote it; shape (examples,), ascending."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return np.asarray(stream.read_all().column("unit"), dtype=np.int64)
