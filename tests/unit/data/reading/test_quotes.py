"""A quote that stands where none may is refused with its line, because readers drop or keep it silently."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.data.reading.text import quotes
from nss_train.data.reading.text.dialect import Dialect
from nss_train.data.reading.text.quotes import has_odd_quotes, strict_records
from nss_train.data.source import read_table

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "escaped by a backslash": (
        "t.csv",
        b'id,text\n1,plain\n2,"say \\"hi\\" now"\n3,"and \\"so\\" on"\n',
        r'line 3 = None: text follows the "(.|\n)*line 4 = None: .*backslash',
    ),
    "inches at the beginning": ("t.csv", b'id,size\n1,"5" wide\n2,3\n', r"line 2 = None: text follows"),
    "not closed": ("t.csv", b'id,text\n1,x\n2,"open\n3,y\n', r'line 3 = None: a " opens .* never closed'),
    "in UTF-16": ("t.csv", 'id,size\n1,"5" wide\n2,3\n'.encode("utf-16"), r"line 2 = None: text follows"),
}
SEVERAL = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", REFUSED)
def test_a_quote_where_none_may_stand_is_refused_with_its_line(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


def test_a_quote_within_a_field_that_is_not_quoted_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,size\n1,5" wide\n2,6"\n')
    assert read_table(tmp_path / "t.csv")["size"].tolist() == ['5" wide', '6"']


@SEVERAL
@given(text=st.text('",a\n', max_size=12), chunk=st.integers(1, 5))
def test_no_odd_quote_is_overlooked_wherever_the_file_is_cut(text: str, chunk: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    found = strict_records(io.StringIO(text, newline=""), Dialect())
    is_wrong = any(isinstance(row, csv.Error) for _, row in found)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quotes, "_CHUNK_BYTES", chunk)
        assert has_odd_quotes(tmp_path / "t.csv", Dialect()) >= is_wrong


@SEVERAL
@given(cells=st.lists(st.text('",a\n', max_size=6), min_size=1))
def test_no_cell_that_is_quoted_as_it_should_be_is_odd(cells: list[str], tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([cell, "x"] for cell in cells)
    assert not has_odd_quotes(tmp_path / "t.csv", Dialect())
