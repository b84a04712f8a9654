"""Slices of one array are gathered as a loop over lists would gather them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nss_train.data.ragged import gather, offsets_of

SLICES = st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=8)


@given(slices=SLICES, data=st.data())
def test_gathered_slices_stand_one_after_the_other(slices: list[list[int]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(slices) - 1), max_size=10))
    values = np.asarray([one for each in slices for one in each], dtype=np.int64)
    offsets = offsets_of([len(each) for each in slices])
    found, lengths = gather(values, offsets, np.asarray(wanted, dtype=np.int64))
    assert found.tolist() == [one for number in wanted for one in slices[number]]
    assert lengths.tolist() == [len(slices[number]) for number in wanted]


def test_offsets_begin_at_zero_and_end_at_the_total() -> None:
    assert offsets_of([2, 0, 3]).tolist() == [0, 2, 2, 5]
    assert offsets_of([]).tolist() == [0]
