"""Numbers with a decimal comma are those with a point, or are not read at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.data.reading.text.numbers import Numbers
from nss_train.data.source import read_source, read_table

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "a comma or a point": ("t.csv", b"a;b\n1;2.847\n2;3.125\n", r"b: 2.847(.|\n)*reading.decimal"),
    "a comma and a point": ("t.csv", b"a;b\n1,5;2.8\n2,5;3.1\n", r"a: 1,5(.|\n)*b: 2.8"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_comma_that_may_be_a_decimal_mark_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


def test_numbers_with_a_decimal_comma_are_those_with_a_point(tmp_path: Path) -> None:
    text = (
        "alter;gewicht;preis;datum\n44;83,5;6.226,70;12.05.2024\n45;NA;80,00;13.05.2024\n"
        "46;80,0;;14.05.2024\n"
    )
    (tmp_path / "t.csv").write_text(text)
    source = read_source(tmp_path / "t.csv")
    expected = {
        "alter": [44, 45, 46],
        "gewicht": [83.5, None, 80.0],
        "preis": [6226.7, 80.0, None],
        "datum": ["12.05.2024", "13.05.2024", "14.05.2024"],
    }
    pd.testing.assert_frame_equal(source.frame, pd.DataFrame(expected))
    assert source.how == "semicolon, UTF-8, decimal comma, thousands point"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.integers(-(10**9), 10**9).map(lambda n: n / 100), min_size=2, max_size=20),
    grouped=st.booleans(),
)
def test_a_german_number_is_read_as_what_it_is_or_not_at_all(
    numbers: list[float], grouped: bool, tmp_path: Path
) -> None:
    texts = [f"{number:,.2f}" if grouped else f"{number:.2f}" for number in numbers]
    german = [text.translate(str.maketrans(",.", ".,")) for text in texts]
    (tmp_path / "t.csv").write_text("k;v\n" + "".join(f"x;{text}\n" for text in german))
    assert read_table(tmp_path / "t.csv")["v"].tolist() == numbers


def test_a_number_beyond_the_greatest_double_is_infinite_as_in_a_plain_table() -> None:
    frame = pd.DataFrame({"v": ["1,5", "1" + "0" * 400 + ",5", "1.234,5"]})
    found = Numbers(marks=(",", "."), columns=("v",)).apply(frame)
    assert found["v"].tolist() == [1.5, float("inf"), 1234.5]


def test_columns_with_no_such_marks_stay_as_they_are() -> None:
    frame = pd.DataFrame({"v": ["1,5"], "text": ["1,5"]})
    assert Numbers(marks=(",", None), columns=("v",)).apply(frame)["text"].tolist() == ["1,5"]
