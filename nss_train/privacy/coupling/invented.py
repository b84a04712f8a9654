"""Invented units, with which a training tries itself before it sees a real one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from nss_train.privacy.dpsgd.micro_batches import IGNORED_LABEL, Shapes, UnitExamples
from nss_train.privacy.dpsgd.poisson_sampling import Indices

CROWD = 4
"""Short units that are always there: couplings are between the rows of a micro-batch, or lie in the model's
state, so that more of them find no more. What grows with their number is scaled instead."""
SEED = 20_210_300
"""Public, as all of an invented unit is."""
_SPECIALS = 16
"""Tokens that a vocabulary begins with and that are more often special than not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Invented:
    """Units D that are always there, and units x of which one joins them at a time."""

    units: UnitExamples
    """All of them."""
    others: UnitExamples
    """The same with other tokens as padding and filler."""
    short: Indices
    """Of D: some of one short row, and one of two."""
    middle: Indices
    """Of D: some of middle length."""
    longest: int
    """The longest of D."""
    joining: dict[str, int]
    """The units x by what is odd about them."""
    widths: dict[str, int]
    """Those of the shortest, the middle and the longest rows."""

    @classmethod
    def of(cls, shapes: Shapes, *, prompt: int, vocabulary: int, pad_id: int) -> Invented:
        """Units of random tokens behind the prompt's number of them."""
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
        """All of D."""
        return np.arange(self.longest + 1)

    def neighbours(self) -> Iterator[tuple[Indices, Indices]]:
        """Units of D that one x joins, and all of them in another order; for each x.

        Each x meets those of its own width, which share micro-batches with it, and some of another that
        come after it. The longest one meets all: what it leaves in the model's state would reach them.
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
