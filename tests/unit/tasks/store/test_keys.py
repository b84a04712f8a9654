"""A key of the store never points outside of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.errors import ParameterError
from tasks.store.keys import check_key, check_prefix

PART = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1)


@pytest.mark.parametrize("key", ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\\b", "a\0b"])
def test_a_key_that_could_leave_the_store_is_refused(key: str) -> None:
    with pytest.raises(ParameterError, match="Not a store key"):
        check_key(key)


@given(st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=5))
def test_a_path_of_plain_parts_is_a_key(parts: list[str]) -> None:
    key = "/".join(parts)
    assert check_key(key) == key


def test_a_prefix_may_end_in_one_slash_and_a_long_key_is_not_repeated_whole() -> None:
    assert check_prefix("jobs/a/") == "jobs/a/"
    with pytest.raises(ParameterError):
        check_prefix("jobs//")
    with pytest.raises(ParameterError) as caught:
        check_key("x" * 10_000 + "/")
    assert len(str(caught.value)) < 1_000
