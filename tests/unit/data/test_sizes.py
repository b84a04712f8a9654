"""A table exceeds a limit when it is larger, not when it is as large."""

from __future__ import annotations

import pytest

from nss_train.contract import TableLimits
from nss_train.data.sizes import Size, passed

LIMITS = TableLimits(rows=10, decoded_bytes=10_000, cell_chars=50, depth=3, expansion=20, small_bytes=1_000)
EDGE = {"rows": 10, "columns": 1, "decoded_bytes": 10_000, "cell_chars": 50, "depth": 3}


def test_a_table_may_be_as_large_as_its_limits() -> None:
    assert passed(Size(file_bytes=500, **EDGE), LIMITS) == {}


@pytest.mark.parametrize("name", ["rows", "decoded_bytes", "cell_chars", "depth"])
def test_one_more_is_too_many_and_is_named_with_what_was_measured(name: str) -> None:
    size = Size(file_bytes=5_000, **(EDGE | {name: EDGE[name] + 1}))
    assert passed(size, LIMITS) == {name: EDGE[name] + 1}


def test_a_small_table_may_expand_as_it_likes() -> None:
    sizes = {1_000: {}, 1_001: {"expansion": 1_001}}
    for decoded, found in sizes.items():
        assert passed(Size(file_bytes=0, rows=1, columns=1, decoded_bytes=decoded), LIMITS) == found


def test_all_limits_that_are_exceeded_are_named_at_once() -> None:
    size = Size(file_bytes=1, rows=11, columns=1, decoded_bytes=10_001, cell_chars=51, depth=4)
    assert set(passed(size, LIMITS)) == {"rows", "decoded_bytes", "cell_chars", "depth", "expansion"}
