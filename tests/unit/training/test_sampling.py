"""The order of examples: each comes once, in an order that follows from the seed alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nss_train.training.steps.sampling import Shuffled


@given(examples=st.integers(0, 200), seed=st.integers(0, 2**31 - 1))
def test_each_example_comes_once(examples: int, seed: int) -> None:
    sampler = Shuffled(examples, seed=seed)
    assert sorted(sampler) == list(range(examples))
    assert len(sampler) == examples


def test_the_order_follows_from_the_seed_and_from_nothing_else() -> None:
    first, again, other = (list(Shuffled(100, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != sorted(first)
