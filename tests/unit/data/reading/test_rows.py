"""Rows that do not fit the header, and headers that are none, are refused with their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.data.reading.text.dialect import Dialect
from nss_train.data.reading.text.rows import check_names, check_rows, kept_places
from nss_train.data.source import read_table
from nss_train.errors import DataError

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "a field too many in each row": (
        "t.csv",
        b"id,address,rent\n" + b"1,61 Elm St, Springfield,740\n" * 9,
        r"all 9 rows have 4 fields and the header has 3(.|\n)*line 2 = '1,61 Elm",
    ),
    "a field too many in one row": ("t.csv", b"a,b\n1,2\n1,2,3\n1,2\n", r"line 3 = '1,2,3': 3 fields"),
    "a field too few": ("t.csv", b"a,b\n1,2\n1\n1,2\n", r"line 3 = '1': 1 field where"),
    "a line break without quotes": ("t.csv", b"a,b\n1,x\ny\n1,2\n", r"line 3 = 'y'(.|\n)*line breaks"),
    "a comma at the end of each row": ("t.csv", b"a,b\n1,2,\n3,4,\n", r"each row ends in a comma"),
    "a comma at the end of each line": ("t.csv", b"a,b,\n1,2,\n3,4,\n", r"column 3 = '': .*ends in a comma"),
    "a semicolon at the end of each row": ("t.csv", b"a;b\n1;2;\n3;4;\n", r"each row ends in a semicolon"),
    "an index that pandas wrote": ("t.csv", b",a\n0,x\n1,y\n", r"column 1 = '': .*columns: \{\"\": drop\}"),
    "a name that pandas made up": ("t.csv", b"Unnamed: 0,a\n0,x\n1,y\n", r"column 1 = 'Unnamed: 0'"),
    "two notes above the header": (
        "t.csv",
        b"# by foo\n# 2024\na,b,c\n1,2,3\n4,5,6\n",
        r"the first 2 lines stand above the header",
    ),
    "names twice": ("t.csv", b"a,b,a\n1,2,3\n1,2,3\n", r"Duplicate(.|\n)*\['a'\]"),
    "a title": ("t.csv", b"Report of 2024\na,b,c\n1,2,3\n4,5,6\n", r"stand above the header"),
    "a title over semicolons": ("t.csv", b"Report\na;b\n1;2\n3;4\n5;6\n", r"stand above the header"),
    "a title with commas": ("t.csv", b"Report,,\na,b,c\n1,2,3\n", r"column 2 = '': .*above the header"),
    "JSON Lines that are named CSV": (
        "t.csv",
        b'{"a": 1,"b": 2}\n{"a": 2,"b": 3}\n',
        r"begins as JSON Lines",
    ),
    "JSON that is named CSV": ("t.csv", b'[{"a": 1,"b": 2},\n{"a": 2,"b": 3}]', r"begins as JSON"),
    "a page of the web": ("t.csv", b"<!DOCTYPE html>\n<html>Not found, sorry</html>\n", r"begins as HTML"),
    "a first line of Excel's": ("t.csv", b"sep=;\na;b\n1;2\n3;4\n", r"is Excel's and no header"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_whose_rows_or_header_do_not_fit_is_refused_with_the_place(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


def test_many_lines_that_do_not_fit_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n" + "1,2,3\n" * 500)
    with pytest.raises(DataError, match="and 490 more") as caught:
        read_table(tmp_path / "t.csv")
    assert len(caught.value.problems) == 11


def test_a_row_that_does_not_fit_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """Pandas takes the first row of each of its blocks for one that may be longer."""
    rows = 100_000
    for odd in (1, rows // 2, rows - 1):
        lines = ["a,b", *(f"{n},x" for n in range(rows))]
        lines[odd] += ",y"
        (tmp_path / "t.csv").write_text("\n".join(lines))
        with pytest.raises(DataError, match=f"line {odd + 1} = "):
            read_table(tmp_path / "t.csv")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mark=st.sampled_from([",", ";", "\t", "|"]), change=st.sampled_from([-1, 1, 2]), data=st.data())
def test_no_row_of_another_width_is_ever_trained(
    mark: str, change: int, data: st.DataObject, tmp_path: Path
) -> None:
    width, rows = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 30))
    lines = [mark.join(f"c{n}" for n in range(width)), *([mark.join("x" * width)] * rows)]
    for odd in data.draw(st.sets(st.integers(1, rows), min_size=1)):
        lines[odd] = mark.join("x" * (width + change))
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError):
        read_table(tmp_path / "t.csv")


def test_all_that_is_wrong_with_a_header_is_said_at_once() -> None:
    with pytest.raises(DataError) as caught:
        check_names(["a", " ", "b", "a", "Unnamed: 4"])
    assert [problem.field for problem in caught.value.problems] == ["column 2", "column 5", "columns"]


def test_a_column_that_is_dropped_needs_no_name_of_its_own() -> None:
    names = ["", "a", "b", "b", "Unnamed: 4"]
    check_names(names, dropped={"", "b", "Unnamed: 4"})
    assert kept_places(names, {"", "b", "Unnamed: 4"}) == [1]


def test_a_quote_that_is_never_closed_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,2\n"3,4\n' + "5,6\n" * 9)
    with pytest.raises(DataError, match="line 3 = .*never closed") as caught:
        check_rows(tmp_path / "t.csv", Dialect(), 2)
    assert len(caught.value.problems) == 1
