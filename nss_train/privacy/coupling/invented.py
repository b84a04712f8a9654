"""Invented units, on which a training is tried before it sees a real one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from nss_train.model.tokenizer import IGNORED_LABEL
from nss_train.privacy.dpsgd.gradients.micro_batches import Shapes, UnitExamples
from nss_train.privacy.dpsgd.poisson_sampling import Indices

CROWD = 4
"""Number of short units that are always present: couplings are between rows of a micro-batch or in the
model's state, so more units find no more. Effects that grow with their number are scaled instead."""
SEED = 20_210_300
"""Public seed; everything about an invented unit is public."""
_SPECIALS = 16
"""Number of first tokens of a vocabulary, which are usually special tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Invented:
    """Units D that are always present, and units x, one of which joins them at a time."""

    units: UnitExamples
    """All units."""
    others: UnitExamples
    """The same units with another token as padding and filler."""
    short: Indices
    """Units of D with one short row, and one unit with two."""
    middle: Indices
    """Units of D of middle length."""
    longest: int
    """The longest unit of D."""
    joining: dict[str, int]
    """The units x by their peculiarity."""
    widths: dict[str, int]
    """Widths of the shortest, the middle and the longest rows."""

    @classmethod
    def of(cls, shapes: Shapes, *, prompt: int, vocabulary: int, pad_id: int) -> Invented:
        """Return units of random tokens, of which the first ``prompt`` are not learned."""
        random = np.random.default_rng(SEED)
        shortest, longest = min(prompt + 4, shapes.longest), shapes.longest
        middle = max(shortest, round(math.sqrt(shortest * longest)))
        low = min(_SPECIALS, vocabulary - 1)

        def row(length: int) -> list[int]:
            return random.integers(low, vocabulary, length).tolist()  # type: ignore[no-any-return]

        found = [[row(shortest - at % 3)] for at in range(CROWD)]
        found += [[row(shortest), row(shortest - 1)], [row(middle)], [row(middle - 1)], [row(longest)]]
        joining = {
            "shortest": [row(shortest - 1)],
            "one token repeated": [[low] * middle],
            "random": [row(middle)],
            "a copy": [list(found[0][0])],
            "longest": [row(longest)],
        }
        numbers = dict(zip(joining, range(len(found), len(found) + len(joining)), strict=True))
        everything = [*found, *joining.values()]
        examples, unit_of = _examples(everything, prompt=min(prompt, shortest - 3))
        widths = shapes.widths_of(np.asarray([shortest, middle, longest])).tolist()
        return cls(
            units=UnitExamples(examples, unit_of, pad_id=pad_id),
            others=UnitExamples(examples, unit_of, pad_id=vocabulary - 1),
            short=np.arange(CROWD + 1),
            middle=np.arange(CROWD + 1, CROWD + 3),
            longest=CROWD + 3,
            joining=numbers,
            widths=dict(zip(("shortest", "middle", "longest"), widths, strict=True)),
        )

    @property
    def base(self) -> Indices:
        """Return all units of D."""
        return np.arange(self.longest + 1)

    def neighbours(self) -> Iterator[tuple[Indices, Indices]]:
        """Yield, for each x, the units of D that it joins, and all of them with x in another order.

        Each x meets units of its own width, which share micro-batches with it, and some of another width that
        come after it. The longest x meets all: what it leaves in the model's state would reach them.
        """
        random = np.random.default_rng(SEED)
        first = self.short[:1]
        meets = {
            "shortest": self.short,
            "a copy": self.short,
            "one token repeated": np.append(first, self.middle),
            "random": np.append(first, self.middle),
            "longest": self.base,
        }
        for name, there in meets.items():
            yield there, random.permutation(np.append(there, self.joining[name]))


def _examples(units: Sequence[Sequence[list[int]]], *, prompt: int) -> tuple[Dataset, npt.NDArray[np.int64]]:
    rows = [row for unit in units for row in unit]
    labels = [[IGNORED_LABEL] * prompt + row[prompt:] for row in rows]
    unit_of = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    return Dataset.from_dict({"input_ids": rows, "labels": labels}), unit_of
