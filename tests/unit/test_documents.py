"""Limits on a document from outside, whichever way it is measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train import documents

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=30)
    | st.sampled_from(["\ud800", '"', "\\", '\\"', "{", "[" * 20]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def has_fault(value: Any, text_chars: int) -> bool:
    """Tell whether a document has a fault, one value after the other, by recursion."""
    if isinstance(value, Mapping):
        return any(has_fault(one, text_chars) for pair in value.items() for one in pair)
    if isinstance(value, list):
        return any(has_fault(one, text_chars) for one in value)
    if isinstance(value, str):
        return len(value) > text_chars or any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and value.bit_length() > documents.INTEGER_BITS


@given(VALUES)
def test_a_level_has_a_fault_if_one_of_its_values_has(value: Any) -> None:
    assert (next(documents.faults(value, text_chars=20), None) is not None) == has_fault(value, 20)


@given(VALUES)
def test_what_is_within_the_bounds_is_read_as_it_was_written(value: Any) -> None:
    written = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if has_fault(value, 20):
        with pytest.raises(ValueError, match=r".+"):
            documents.parse(written, text_chars=20)
    else:
        assert documents.parse(written, text_chars=20) == value


@pytest.mark.parametrize("text", ["", '"', "\\", '\\"', "n\\n"])
def test_brackets_and_commas_in_texts_count_for_nothing(text: str) -> None:
    within = text + "[{,]}" * 3_000
    assert documents.parse(json.dumps([within] * 10).encode()) == [within] * 10
