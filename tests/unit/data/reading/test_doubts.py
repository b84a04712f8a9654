"""Rows below the data and pairs in one column are told, and nothing that is usual is."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from nss_train.config import parse_config
from nss_train.config.sections.reading import ReadingParameters, Types
from nss_train.data.source import Source, read_source
from nss_train.errors import DataError
from nss_train.stages.preparation import prepare

AS_NSS = ReadingParameters(types=Types.NSS)
ROWS = "".join(f"city {row},{row}\n" for row in range(8))
DOUBTED = {
    "a sum": (f"place,n\n{ROWS}Total,28\n", "the last row has 'Total' in place"),
    "a sum with a colon": (f"place,n\n{ROWS}  GRAND TOTAL:,28\n", "the last row has 'GRAND TOTAL:' in place"),
    "a sum in Chinese": (f"place,n\n{ROWS}合计,28\n", "'合计' in place"),
    "a sum below an empty first cell": (f"n,place\n{ROWS},sum\n", "the last row has 'sum' in place"),
    "a note": (f"place,n\n{ROWS}\nSource: WHO,2020\n", "an empty line stands before the last row, which is"),
    "two notes": (f"place,n\n{ROWS} \na,1\nb,2\n", "before the last 2 rows, which are"),
    "a note of one column": ("note\n" + "x\n" * 20 + "\nSource\n", "before the last row, which is"),
    "a sum of Excel's pivot tables": (f"place,n\n{ROWS}Gesamtergebnis,28\n", "'Gesamtergebnis' in place"),
    "rows of commas": (f"place,n\n{ROWS},\n,\n", "2 rows without any value"),
    "empty lines of one column": ("n\n1\n\n2\n\n3\n\n", "2 empty lines of the single column"),
    "names that look alike": ("id\u200b, n,m\n1,2,3\n4,5,6\n", r"2 column names .*: 'id\\u200b', ' n'"),
    "no header": (
        "Adelie,39.1,2007-01-02\nGentoo,46.5,2008-02-03\nAdelie,38.6,2009-03-04\n",
        "3 column names of 3 look like cells of their columns: 'Adelie', '39.1', '2007-01-02'",
    ),
    "no header above whole numbers": ("7,3,9\n1,2,3\n4,5,6\n", "3 column names of 3 look like cells"),
    "a word among numbers": (
        "id,kg\n" + "".join(f"{row},{row}.5\n" for row in range(20)) + "20,\\N\n21,?\n",
        r"kg: its cells are numbers but for '\N', '?', which makes all of them text",
    ),
    "pairs": ("first last\nAda Lovelace\nAlan Turing\n", "first last: read as one column"),
}
USUAL = {
    "years": "country,2019,2020\nA,1,2\nB,3,4\n",
    "names of more digits than Python converts": f"country,{'1' * 5000},{'2' * 5000}\nA,1,2\nB,3,4\n",
    "numbered columns": "0,1,2\n5,6,7\n8,9,1\n",
    "a name that is an answer": "yes,n,m\nyes,1,2\nno,3,4\n",
    "numbered questions": "Q1,Q2,n\nA1,B2,1\nA3,B1,2\n",
    "codes": "id,code\n" + "".join(f"{row},{row}{row % 5 * 'x'}\n" for row in range(20)),
    "few numbers": "id,children\n" + "".join(f"{row},{row % 4}\n" for row in range(20)) + "20,4+\n",
    "no sum": f"place,n\n{ROWS}Totality,28\n",
    "sums of groups": f"place,n\nTotal,3\n{ROWS}Total,28\n",
    "empty lines everywhere": "place,n\n\n" + ROWS.replace("\n", "\n\n") + "x,1\n",
    "empty lines at the end": f"place,n\n{ROWS}\n\n\n",
    "an empty line in the middle": f"place,n\n{ROWS}\n{ROWS}",
    "an empty line in a cell": f'place,n\n{ROWS}"two\n\nlines",28\n',
    "one column of sentences": "text\nAda Lovelace\nAlan Turing\n",
    "one column of names of other lengths": "first last\nAda King Lovelace\nAlan Turing\n",
}


def read(folder: Path, text: str) -> Source:
    path = folder / "t.csv"
    path.write_text(text)
    return read_source(path, reading=AS_NSS)


@pytest.mark.parametrize("name", DOUBTED)
def test_what_may_be_no_data_is_told(name: str, tmp_path: Path) -> None:
    text, said = DOUBTED[name]
    (doubt,) = read(tmp_path, text).doubts
    assert said in doubt or re.search(said, doubt)


@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_is_not_told(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, USUAL[name]).doubts == ()


def test_a_doubt_is_among_the_warnings_of_a_prepared_table(tmp_path: Path, tiny_model: Path) -> None:
    read(tmp_path, f"place,n\n{ROWS * 30}Total,840\n")
    config = parse_config({"training": {"pretrained_model": str(tiny_model)}})
    found = prepare(tmp_path / "t.csv", config, model=tiny_model, seed=1).warnings
    assert any("the last row has 'Total' in place" in warning for warning in found)


def test_one_of_something_is_no_plural(tmp_path: Path) -> None:
    assert read(tmp_path, "a\n1\n2\n").read_as == "comma, UTF-8, 1 column, 2 rows"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_header_among_the_rows_is_refused_with_its_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    rows = [["1", "x"], ["a", "b"], ["2", "a"], ["a", "b"]]
    frame = pd.DataFrame(rows, columns=["a", "b"])
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    with pytest.raises(DataError, match=r"row 2 = None: it repeats the header(.|\n)*row 4"):
        read_source(path)
    (tmp_path / "t.csv").write_text("a\nx\na\ny\n")  # one column may hold its name
    assert len(read_source(tmp_path / "t.csv").frame) == 3


def test_an_index_of_texts_without_a_name_is_told_and_a_numbered_one_is_not(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    frame.to_parquet(tmp_path / "t.parquet")
    (doubt,) = read_source(tmp_path / "t.parquet").doubts
    assert "index has no name and is left out" in doubt
    frame.reset_index(drop=True).to_parquet(tmp_path / "t.parquet")
    assert read_source(tmp_path / "t.parquet").doubts == ()
