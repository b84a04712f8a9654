"""The marks between fields are found, declared or refused: they are never guessed."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.config.sections.reading import ReadingParameters
from nss_train.contract import TableLimits
from nss_train.data.reading.text.delimiter import MARKS, find_marks
from nss_train.data.reading.text.dialect import Dialect, text_chunks
from nss_train.data.source import read_source, read_table
from nss_train.errors import DataError

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "two delimiters": ("t.csv", b"a;b,c\n1;2,3\n1;2,4\n", r"reading.delimiter(.|\n)*comma or semicolon"),
    "colons": ("t.csv", b"a:b\n1:2\n3:4\n", r"separated by :: set reading.delimiter"),
    "spaces": ("t.txt", b"a b c\n1 2 3\n4 5 6\n", r"separated by space: set reading.delimiter"),
    "two columns with spaces": ("t.txt", b"h v\n1 a\n2 b\n", r"separated by space: set reading.delimiter"),
    "columns of a fixed width": ("t.txt", b"  a   b  c\n 10  2  3\n  4 50  6\n", r"runs of spaces"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_could_be_separated_in_several_ways_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n\n1,2\n   \n3,4\n\n",
        "a,b\r\n1,2\r\n3,4",
        "a,b\r1,2\r3,4\r",
        'a,b\n"1",2\n"3",4',
        'a,b\n1,"x\ny"\n3,"p,""q"""\n',
        "a\nx;y\nz\n",
        "full name\nAda L\nBo M\n",
        "a:b\n1:2\n3\n",
        "a\n1\n\n2\n",
        "a,b\n,\n1,2\n",
        "  a,b  \n1,2\n3,4\n",
        'a,b\nx"y,2\nz,4\n',
        "a,b|c\n1,x\n2,y\n",
        'a,b\n1,2.847\n2,"3,5"\n',
        "zip,d\n01,2024-01-01\n02,\n",
    ],
)
def test_a_comma_table_is_read_as_pandas_alone_reads_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    pd.testing.assert_frame_equal(read_table(path), pd.read_csv(path))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=6)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), mark=st.sampled_from([",", ";", "\t", "|"]))
def test_every_cell_that_a_csv_writer_wrote_is_in_its_place(
    data: st.DataObject, mark: str, tmp_path: Path
) -> None:
    width = data.draw(st.integers(2, 4))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=2, max_size=6))
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=mark, quoting=csv.QUOTE_ALL).writerows(
            [[f"c{n}" for n in range(width)], *rows]
        )
    reading = ReadingParameters(delimiter=mark)
    source = read_source(path, TableLimits(), reading)
    assert source.dialect is not None
    cells = list(text_chunks(path, source.dialect, rows=2))
    assert [row for chunk in cells for row in zip(*chunk.values(), strict=True)] == [tuple(r) for r in rows]


@pytest.mark.parametrize("mark", MARKS)
def test_a_usual_mark_that_alone_fits_is_found(mark: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"a{mark}b\n1{mark}x\n2{mark}y\n")
    assert find_marks(tmp_path / "t.csv", Dialect(), ReadingParameters()).delimiter == mark


def test_where_tabs_and_commas_fit_the_file_s_name_decides(tmp_path: Path) -> None:
    for name in ("t.tsv", "t.csv"):
        (tmp_path / name).write_text("a\tb,c\n1\t2,3\n4\t5,6\n")
    assert find_marks(tmp_path / "t.tsv", Dialect(), ReadingParameters()).delimiter == "\t"
    with pytest.raises(DataError, match="comma or tab"):
        find_marks(tmp_path / "t.csv", Dialect(), ReadingParameters())


def test_apostrophes_quote_only_if_they_surround_every_name(tmp_path: Path) -> None:
    for header, quote in {"'a','b'": "'", "'a',b": '"', "a,b": '"'}.items():
        (tmp_path / "t.csv").write_text(f"{header}\n1,2\n3,4\n")
        assert find_marks(tmp_path / "t.csv", Dialect(), ReadingParameters()).quote == quote
