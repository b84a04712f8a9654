"""A step's examples are divided into micro-batches that fit, and nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from nss_train.training.steps.micro_batches import PADDING, Example, Room, lengths_of, micro_batches

CPU = torch.device("cpu")


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=20)
rooms = st.builds(Room, rows=st.integers(1, 8), tokens=st.integers(1, 200), multiple=st.sampled_from([1, 8]))


def example(tokens: int, *, prompt: int = 0) -> Example:
    ids = np.arange(10, 10 + tokens)
    labels = ids.copy()
    labels[:prompt] = -100
    return Example(input_ids=ids, labels=labels)


@given(lengths, rooms)
def test_each_row_is_in_one_micro_batch_that_fits(sizes: list[int], room: Room) -> None:
    parts = room.parts(sizes)
    assert sorted(number for part in parts for number in part) == list(range(len(sizes)))
    for part in parts:
        width = room.width(max(sizes[number] for number in part))
        assert len(part) <= room.rows
        assert len(part) == 1 or len(part) * width <= room.tokens


@given(lengths, rooms)
def test_longer_rows_come_first_so_that_little_is_padded(sizes: list[int], room: Room) -> None:
    found = [sizes[number] for part in room.parts(sizes) for number in part]
    assert found == sorted(sizes, reverse=True)


def test_no_row_stays_alone_where_a_larger_micro_batch_can_give_one() -> None:
    assert [len(part) for part in Room(rows=4, tokens=1000).parts([10] * 5)] == [3, 2]
    assert [len(part) for part in Room(rows=2, tokens=1000).parts([10] * 3)] == [2, 1]


def test_half_a_room_is_smaller_until_a_single_row_is_left() -> None:
    room: Room | None = Room(rows=5, tokens=100, multiple=8)
    seen = []
    while room is not None:
        seen.append((room.rows, room.tokens, room.multiple))
        room = room.halved()
    assert seen == [(5, 100, 8), (2, 50, 8), (1, 25, 8)]


@given(lengths, st.integers(0, 5), rooms)
def test_learned_tokens_are_found_behind_the_tokens_before_them(
    sizes: list[int], prompt: int, room: Room
) -> None:
    examples = [example(size, prompt=prompt) for size in sizes]
    learned = []
    for batch in micro_batches(examples, room, device=CPU):
        ids = batch.input_ids.flatten()
        assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape
        assert torch.equal(ids[batch.learned + 1], batch.targets)
        assert (batch.input_ids[batch.attention_mask == 0] == PADDING).all()
        learned += batch.targets.tolist()
    wanted = [int(label) for one in examples for label in one.labels[1:] if label != -100]
    assert sorted(learned) == sorted(wanted)
    assert len(learned) == sum(one.learned for one in examples)


def test_the_lengths_of_chosen_examples_are_theirs() -> None:
    ids = [[1, 2], [3], [4, 5, 6]]
    examples = Dataset.from_dict({"input_ids": ids, "labels": ids})
    assert lengths_of(examples).tolist() == [2, 1, 3]
    assert lengths_of(examples.select([2, 0])).tolist() == [3, 2]
    assert lengths_of(examples.select([])).tolist() == []
