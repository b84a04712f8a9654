"""Plans of examples: rules for every kind of table."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.data.assembly.groups import find_groups, group_order, split_groups
from nss_train.data.assembly.packing import pack, split_validation
from nss_train.data.assembly.windows import pack_windows, window_order
from nss_train.errors import ParameterError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(lengths=LENGTHS, budget=st.integers(40, 200), most=st.one_of(st.none(), st.integers(1, 9)))
def test_packing_keeps_every_record_in_order_and_within_the_budget(
    lengths: list[int], budget: int, most: int | None
) -> None:
    sizes = np.asarray(lengths)
    plan = pack(np.arange(len(sizes)), sizes, budget=budget, max_records=most)
    assert plan.rows.tolist() == list(range(len(sizes)))
    examples = [sizes[a:b] for a, b in zip(plan.sequences[:-1], plan.sequences[1:], strict=True)]
    assert all(len(example) and example.sum() <= budget for example in examples)
    assert most is None or all(len(example) <= most for example in examples)
    # No example could have taken the first record of the next.
    for example, after in itertools.pairwise(examples):
        assert len(example) == most or example.sum() + after[0] > budget


@given(
    lengths=LENGTHS.filter(lambda found: len(found) > 1),
    groups=st.integers(1, 5),
    fraction=st.floats(0.01, 2.9),
    seed=st.integers(0, 9),
)
def test_windows_hold_one_group_in_order(lengths: list[int], groups: int, fraction: float, seed: int) -> None:
    sizes = np.asarray(lengths)
    rows = np.arange(len(sizes))
    table = pa.table({"g": [i % groups for i in rows], "t": rows})
    found = find_groups(table, rows, sizes, group_by="g", order_by="t")
    order = window_order(found, fraction)
    plan = pack_windows(found, order, sizes, budget=60, max_records=None, rng=np.random.default_rng(seed))
    assert plan.rows.tolist() == found.rows[order].tolist()
    for a, b in zip(plan.sequences[:-1], plan.sequences[1:], strict=True):
        window = plan.rows[a:b]
        assert len({int(row) % groups for row in window}) == 1
        assert (np.diff(window) > 0).all()
        assert sizes[window].sum() <= 60


@given(groups=st.lists(st.integers(0, 6), min_size=2, max_size=50), fraction=st.floats(0.01, 0.99))
def test_a_part_of_the_groups_has_enough_records_and_no_group_too_many(
    groups: list[int], fraction: float
) -> None:
    sizes = np.ones(len(groups), dtype=np.int64)
    found = find_groups(pa.table({"g": groups}), np.arange(len(groups)), sizes, group_by="g", order_by=None)
    chosen = group_order(found, fraction, np.random.default_rng(1))
    wanted = np.ceil(fraction * len(groups))
    assert found.sizes[chosen].sum() >= wanted > found.sizes[chosen[:-1]].sum()


@given(keys=st.lists(st.integers(0, 8), min_size=20, max_size=60), ratio=st.floats(0.1, 0.5))
def test_a_split_shares_no_group(keys: list[int], ratio: float) -> None:
    series = pd.Series([*keys, 100, 101])
    split = split_groups(series, ratio, seed=1)
    assert split.validation is not None
    assert not set(series[split.train]) & set(series[split.validation])
    assert len(split.train) + len(split.validation) == len(series)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(ParameterError, match="cannot be split"):
        split_groups(pd.Series(["a"] * 200), 0.1, seed=1)


@pytest.mark.parametrize("ratio", [0.9951, 1.0])
def test_a_validation_split_leaves_records_to_train_on(ratio: float) -> None:
    with pytest.raises(ParameterError, match="leaves none of 200 records"):
        split_validation(200, ratio, seed=1)
    assert len(split_validation(200, 0.995, seed=1).train) == 1
