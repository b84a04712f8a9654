"""Durations and numbers are written as people read them."""

from __future__ import annotations

import pytest

from nss_train.text.counted import counted
from nss_train.text.durations import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3_599.6, "1 h"),
        (12_900, "3 h 35 min"),
        (86_390, "1 d"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units_and_is_rounded_up_into_the_next(
    seconds: float, words: str
) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("number", "words"), [(0, "0 rows"), (1, "1 row"), (2_000, "2,000 rows")])
def test_one_thing_is_counted_in_the_singular(number: int, words: str) -> None:
    assert counted(number, "row") == words
