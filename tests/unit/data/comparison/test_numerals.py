"""Numbers are the same if their digits are, however a file writes them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from nss_train.data.comparison.numerals import Numerals


def numerals(raw: list[str | None], trained: list[Any]) -> Numerals:
    return Numerals.of(pa.array(raw, pa.string()), pd.Series(trained))


@pytest.mark.parametrize(
    ("raw", "trained", "same"),
    [
        ("1.50", 1.5, True),
        ("+1.5", 1.5, True),
        ("1e3", 1000.0, True),
        ("1.5", 1.25, False),
        ("9007199254740993", 9007199254740992.0, False),
        ("-0012", -12, True),
    ],
)
def test_a_number_is_the_same_if_its_value_is(raw: str, trained: Any, same: bool) -> None:
    assert numerals([raw], [trained]).same.tolist() == [same]


def test_equal_cells_are_counted_and_missing_ones_are_left_out() -> None:
    found = numerals(["7", None, "7", "8", "7"], [7.0, None, 7.0, 8.0, 7.0])
    assert found.raw.to_pylist() == ["7", "8"]
    assert found.rows.tolist() == [3, 1]
    assert found.count == 4
    assert found.where(found.rows > 1).raw.to_pylist() == ["7"]


def test_signs_zeros_and_ends_that_a_training_would_not_see_are_noticed() -> None:
    found = numerals(["+1", "01", "1.0", "1", "-05", "0", "0.5"], [1, 1, 1, 1, -5, 0, 0.5])
    assert found.signs.tolist() == [True, False, False, False, False, False, False]
    assert found.zeros.tolist() == [False, True, False, False, True, False, False]
    assert found.ends.tolist() == [False, False, True, False, False, False, False]


def test_an_identifier_with_leading_zeros_and_the_number_are_two_things() -> None:
    found = numerals(["007", "7", "7.0"], [7, 7, 7])
    first, second, third = found.keys().tolist()
    assert first != second
    assert second == third


def test_fractions_that_differ_in_a_float_s_last_digits_are_one() -> None:
    found = numerals(["0.3", "0.30000000000000004", "0.31"], [0.3, 0.30000000000000004, 0.31])
    first, second, other = found.keys().tolist()
    assert first == second != other


def test_a_number_that_json_cannot_write_is_infinite() -> None:
    found = numerals(["1e999", "inf", "text", ""], [float("inf"), float("inf"), float("nan"), float("nan")])
    assert found.infinite.tolist() == [True, True, False, False]
    assert found.empty.tolist() == [False, False, False, True]
