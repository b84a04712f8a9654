"""A layout cuts records into sequences and examples, and loses none of them."""

from __future__ import annotations

import numpy as np
import pytest

from nss_train.data.assembly.layout import groups_as_sequences, one_sequence_each
from nss_train.data.assembly.statistics import Running


def test_examples_of_one_sequence_end_where_they_are_cut() -> None:
    layout = one_sequence_each(np.asarray([4, 2, 0, 1, 3]), [2, 5])
    assert len(layout) == 2
    assert layout.records_per_example.tolist() == [2, 3]
    assert layout.sequences_per_example.tolist() == [1, 1]


def test_groups_become_sequences_in_the_chosen_order() -> None:
    rows, offsets = np.asarray([10, 11, 20, 30, 31, 32]), np.asarray([0, 2, 3, 6])
    layout = groups_as_sequences(rows, offsets, np.asarray([2, 0, 1]), [1, 3])
    assert layout.rows.tolist() == [30, 31, 32, 10, 11, 20]
    assert layout.records_per_example.tolist() == [3, 3]
    assert layout.sequences_per_example.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([], (0, 0.0, 0.0, 0.0, 0.0)),
        ([7], (1, 7.0, 7.0, 7.0, 0.0)),
        ([2, 4, 4, 4, 5, 5, 7, 9], (8, 2.0, 9.0, 5.0, np.sqrt(32 / 7))),
    ],
)
def test_statistics_of_no_value_and_of_one_are_numbers_too(
    series: list[int], expected: tuple[float, ...]
) -> None:
    found = Running.of(np.asarray(series, dtype=np.int64)).as_json()
    assert list(found) == ["count", "min", "max", "mean", "stddev"]
    assert list(found.values()) == pytest.approx(expected)
