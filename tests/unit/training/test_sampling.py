"""The order of examples: each comes once, and what fills the last batch up comes last."""

from __future__ import annotations

from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from nss_train.training.sampling import Shuffled, padded


@given(real=st.integers(0, 200), padding=st.integers(0, 7), seed=st.integers(0, 2**31 - 1))
def test_each_example_comes_once_and_the_padding_last(real: int, padding: int, seed: int) -> None:
    order = list(Shuffled(real=real, padding=padding, seed=seed))
    assert sorted(order[:real]) == list(range(real))
    assert order[real:] == list(range(real, real + padding))


def test_the_order_follows_from_the_seed_and_from_nothing_else() -> None:
    first, again, other = (list(Shuffled(real=100, padding=0, seed=seed)) for seed in (1, 1, 2))
    padded_order = list(Shuffled(real=100, padding=3, seed=1))
    assert first == again == padded_order[:100]
    assert first != other
    assert first != sorted(first)


def test_padding_teaches_nothing_and_leaves_the_examples_as_they_are() -> None:
    rows = [{"input_ids": [n, 7], "attention_mask": [1, 1], "labels": [-100, n]} for n in range(5)]
    examples = Dataset.from_list([row | {"length": 2} for row in rows])
    found = padded(examples, 4)
    assert len(found) == 8
    assert found.select(range(5)).to_list() == rows
    assert all(set(row["labels"]) == {-100} for row in found.select(range(5, 8)))
    assert padded(examples, 5) is examples
