"""Micro-batches hold what there is room for, however many rows a unit has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from nss_train.privacy.batches import IGNORED_LABEL, MicroBatch, Room, UnitExamples


def units_of(sizes: list[int]) -> UnitExamples:
    """Units of so many rows; a row's first token is its number, and as many follow as its unit has rows."""
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    ids = [[row, *[9] * sizes[unit]] for row, unit in enumerate(of_row.tolist())]
    labels = [[IGNORED_LABEL, *one[1:]] for one in ids]
    return UnitExamples(Dataset.from_dict({"input_ids": ids, "labels": labels}), of_row, pad_id=0)


def cut(sizes: list[int], room: Room) -> list[MicroBatch]:
    return list(units_of(sizes).micro_batches(np.arange(len(sizes)), room))


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)
ROOMS = st.builds(Room, tokens=st.integers(1, 60), rows=st.integers(1, 8))


@given(sizes=SIZES, room=ROOMS)
def test_no_micro_batch_is_larger_than_the_room_but_by_a_single_row(sizes: list[int], room: Room) -> None:
    for batch in cut(sizes, room):
        rows, width = batch.input_ids.shape
        assert rows == 1 or (rows <= room.rows and rows * width <= room.tokens)


@given(sizes=SIZES, room=ROOMS)
def test_each_row_comes_once_and_each_unit_without_a_break(sizes: list[int], room: Room) -> None:
    owners = np.repeat(np.arange(len(sizes)), sizes)
    seen: list[int] = []
    finished: list[int] = []
    for batch in cut(sizes, room):
        rows = batch.input_ids[:, 0].tolist()
        seen += rows
        whose = owners[rows]
        assert len(set(zip(batch.places.tolist(), whose.tolist(), strict=True))) == len(set(whose.tolist()))
        # Learned tokens of the whole unit, not of the part.
        assert batch.learned.tolist() == [sizes[unit] ** 2 for unit in whose]
        assert not set(whose.tolist()) & set(finished)
        if batch.ends:
            finished += sorted(set(whose.tolist()))
        else:
            assert len(set(whose.tolist())) == 1
    assert sorted(seen) == list(range(len(owners)))
    assert sorted(finished) == list(range(len(sizes)))


@pytest.mark.parametrize("halvings", range(4))
def test_less_memory_means_fewer_rows_of_a_large_unit(halvings: int) -> None:
    batches = cut([8], Room(tokens=1000 >> halvings, rows=8 >> halvings))
    assert [len(batch.places) for batch in batches] == [8 >> halvings] * 2**halvings
    assert [batch.ends for batch in batches] == [*[False] * (2**halvings - 1), True]


def test_a_part_keeps_its_end_on_another_device() -> None:
    first, *_ = cut([4], Room(tokens=1000, rows=2))
    assert not first.to(torch.device("cpu")).ends
