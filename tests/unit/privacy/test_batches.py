"""Micro-batches have public shapes, whatever the rows of a unit and the other units drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from nss_train.privacy.dpsgd.gradients.micro_batches import (
    FILLER,
    IGNORED_LABEL,
    MicroBatch,
    Shapes,
    UnitExamples,
)

LONGEST = 60


def units_of(sizes: list[int], lengths: list[int] | None = None) -> UnitExamples:
    """Return units of this many rows; a row's first token is its number."""
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    wanted = lengths or [sizes[unit] + 1 for unit in of_row.tolist()]
    ids = [[row, *[9] * (length - 1)] for row, length in enumerate(wanted)]
    labels = [[IGNORED_LABEL, *one[1:]] for one in ids]
    return UnitExamples(Dataset.from_dict({"input_ids": ids, "labels": labels}), of_row, pad_id=0)


def cut(sizes: list[int], shapes: Shapes) -> list[MicroBatch]:
    return list(units_of(sizes).micro_batches(np.arange(len(sizes)), shapes))


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)
SHAPES = st.builds(Shapes, longest=st.just(LONGEST), tokens=st.integers(1, 200), rows=st.integers(1, 8))


@given(sizes=SIZES, shapes=SHAPES)
def test_there_is_one_shape_for_each_width(sizes: list[int], shapes: Shapes) -> None:
    for batch in cut(sizes, shapes):
        rows, width = batch.input_ids.shape
        assert width in shapes.widths
        assert rows == shapes.rows_at(width)
        assert rows == 1 or (rows <= shapes.rows and rows * width <= shapes.tokens)


@given(sizes=SIZES, shapes=SHAPES)
def test_each_row_comes_once_and_each_unit_without_a_break(sizes: list[int], shapes: Shapes) -> None:
    owners = np.repeat(np.arange(len(sizes)), sizes)
    seen: list[int] = []
    finished: list[int] = []
    for batch in cut(sizes, shapes):
        real = batch.units != FILLER
        rows = batch.input_ids[torch.from_numpy(real), 0].tolist()
        seen += rows
        whose = owners[rows]
        assert batch.units[real].tolist() == whose.tolist()
        places = batch.places.numpy()[real]
        assert len(set(zip(places.tolist(), whose.tolist(), strict=True))) == len(set(whose.tolist()))
        # Learned tokens of the whole unit, not of the part.
        assert batch.learned.numpy()[real].tolist() == [sizes[unit] ** 2 for unit in whose]
        assert not set(whose.tolist()) & set(finished)
        if batch.ends:
            finished += sorted(set(whose.tolist()))
        else:
            assert len(set(whose.tolist())) == 1
    assert sorted(seen) == list(range(len(owners)))
    assert sorted(finished) == list(range(len(sizes)))


@given(sizes=SIZES, shapes=SHAPES)
def test_filler_learns_nothing_and_is_nobodys(sizes: list[int], shapes: Shapes) -> None:
    for batch in cut(sizes, shapes):
        filler = torch.from_numpy(batch.units == FILLER)
        assert (batch.labels[filler] == IGNORED_LABEL).all()
        # Behind all units, each at a place of its own.
        places = batch.places[filler].tolist()
        assert len(set(places)) == len(places)
        assert not set(places) & set(batch.places[~filler].tolist())


@given(lengths=st.lists(st.integers(1, LONGEST), min_size=2, max_size=10), shapes=SHAPES, data=st.data())
def test_the_width_of_a_unit_depends_on_its_own_longest_row(
    lengths: list[int], shapes: Shapes, data: st.DataObject
) -> None:
    examples = units_of([1] * len(lengths), lengths)
    chosen = data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))
    for batch in examples.micro_batches(np.asarray(sorted(chosen)), shapes):
        for unit in batch.units[batch.units != FILLER].tolist():
            assert batch.input_ids.shape[1] == min(w for w in shapes.widths if w >= lengths[unit])


def test_widths_are_quarter_octaves_up_to_the_longest() -> None:
    widths = Shapes(longest=2048, tokens=8192, rows=8).widths
    assert widths[-1] == 2048
    assert ((widths[2:] / widths[1:-1]) <= 2**0.25 * 1.26).all()
    assert (widths[:-1] % 8 == 0).all()


@pytest.mark.parametrize("halvings", range(4))
def test_less_memory_means_fewer_rows_of_a_large_unit(halvings: int) -> None:
    batches = cut([8], Shapes(longest=LONGEST, tokens=1000 >> halvings, rows=8 >> halvings))
    assert [len(batch.places) for batch in batches] == [8 >> halvings] * 2**halvings
    assert [batch.ends for batch in batches] == [*[False] * (2**halvings - 1), True]


def test_a_part_keeps_its_end_on_another_device() -> None:
    first, *_ = cut([4], Shapes(longest=LONGEST, tokens=1000, rows=2))
    assert not first.to(torch.device("cpu")).ends


def test_nobody_drawn_and_nobody_there_are_no_micro_batches() -> None:
    shapes = Shapes(longest=LONGEST, tokens=1000, rows=2)
    nobody = np.empty(0, dtype=np.int64)
    assert list(units_of([2, 1]).micro_batches(nobody, shapes)) == []
    empty = UnitExamples(Dataset.from_dict({"input_ids": [], "labels": []}), nobody, pad_id=0)
    assert len(empty) == 0
    assert list(empty.micro_batches(nobody, shapes)) == []


def test_units_without_an_example_are_not_there() -> None:
    rows = Dataset.from_dict({"input_ids": [[1, 2], [3, 4], [5, 6]], "labels": [[-100, 2]] * 3})
    units = UnitExamples(rows, np.asarray([2, 2, 7]), pad_id=0)
    assert len(units) == 2
    (batch,) = units.micro_batches(np.arange(2), Shapes(longest=LONGEST, tokens=100, rows=4))
    assert batch.units.tolist() == [0, 0, 1, FILLER]


def test_a_unit_with_a_longer_row_than_there_may_be_is_without_effect() -> None:
    shapes = Shapes(longest=10, tokens=100, rows=1)
    batches = units_of([1, 1, 1], [4, 11, 10]).micro_batches(np.arange(3), shapes)
    assert sorted(int(batch.units[0]) for batch in batches) == [0, 2]
