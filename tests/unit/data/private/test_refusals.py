"""The reasons to refuse a private file, none of which quotes it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nss_train.contract import TableLimits
from nss_train.data.private.reading import read_private_frame, read_private_table
from nss_train.errors import DataError, ParameterError, UserError
from tests.unit.data.private.reads import guarantee

SECRET = "Meier"


@pytest.mark.parametrize("form", ["%Y %Y", "%", "%Q", "%-d", "%G-%V"])
def test_a_format_that_reads_no_time_is_refused_whatever_the_cells(form: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("v\n\n")
    declared = guarantee({"v": {"type": "datetime", "format": form}})
    with pytest.raises(ParameterError, match="strptime cannot read"):
        read_private_table(tmp_path / "t.csv", declared)


def refusal(path: Path, *given: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        read_private_table(path, *given)
    assert SECRET not in str(caught.value)
    return caught.value


def test_all_that_is_wrong_with_columns_and_declarations_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"a,b,b,\n{SECRET},2,3,4\n")
    wrong = {
        "a": {"type": "string", "minimum": 1},
        "b": {"type": "integer", "categories": ["x"], "minimum": 1.2, "maximum": 1.8},
        "photo": {},
    }
    error = refusal(path, guarantee(wrong))
    assert isinstance(error, ParameterError)
    assert [problem.field for problem in error.problems] == [
        *("table.columns", "table.columns", "guarantee.columns.a"),
        *("guarantee.columns.b", "guarantee.columns.b", "guarantee.columns.photo"),
    ]


def test_binary_columns_and_types_that_the_schema_contradicts_are_refused(tmp_path: Path) -> None:
    nested = pa.array([[SECRET.encode()]])
    table = pa.table({"photo": pa.array([b"x"]), "photos": nested, "list": [[1]], "name": [SECRET]})
    pq.write_table(table, tmp_path / "t.parquet")
    error = refusal(tmp_path / "t.parquet", guarantee({"list": {"type": "integer"}}))
    assert [p.field for p in error.problems] == ["columns.photo", "columns.photos", "guarantee.columns.list"]


def test_json_lines_and_frames_need_their_columns_declared(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"name": SECRET}))
    assert "nss-train check" in str(refusal(tmp_path / "t.jsonl", guarantee()))
    with pytest.raises(ParameterError, match=r"'a, b': declare the type") as caught:
        read_private_frame(pd.DataFrame({"a": [SECRET], "b": [1]}), guarantee({"b": {"minimum": 1}}))
    assert len(caught.value.problems) == 1


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("t.csv", b"", "the file is empty"),
    "compressed": ("t.csv", gzip.compress(b"a\n1\n"), "compressed"),
    "unknown": ("t.txt", b"a\n1\n", "a private job reads .csv, .parquet"),
    "packed": ("t.csv.gz", b"a\n1\n", "a private job reads .csv, .parquet"),
    "workbook": ("t.xlsx", b"PK\x03\x04", "a private job reads .csv, .parquet"),
    "semicolons": ("t.csv", b"a;b\n1;2\n", "no comma but a semicolon"),
    "tabs": ("t.csv", b"a\tb\n1\t2\n", "no comma but a tab"),
    "binary header": ("t.csv", b"a,\0\nMeier,1\n", "the header is no text"),
    "header in another encoding": ("t.csv", "a,\xe9\nMeier,1\n".encode("latin-1"), "not UTF-8"),
    "header without end": ("t.csv", b'a,"b\nMeier,1\n', "the header has a quote that is not closed"),
    "no names": ("t.csv", b"\nMeier\n", "the first line is empty"),
    "no Parquet": ("t.parquet", b"PAR1Meier", "damaged, or no Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_table_is_refused_without_a_word_of_it(name: str, tmp_path: Path) -> None:
    file, content, says = BROKEN[name]
    (tmp_path / file).write_bytes(content)
    error = refusal(tmp_path / file, guarantee())
    assert isinstance(error, DataError)
    assert says in str(error)


def test_limits_of_the_table_refuse_it_and_limits_of_a_record_do_not(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + f"{SECRET},{'x' * 50}\n" * 20 + "1,2\n")
    limits = TableLimits(cell_chars=10)
    assert read_private_table(path, guarantee(), limits).null.tolist() == [True] * 20 + [False]
    error = refusal(path, guarantee(), TableLimits(rows=20))
    assert [(problem.field, problem.value) for problem in error.problems] == [("table.rows", "21")]
    assert "columns = '2'" in str(refusal(path, guarantee(), TableLimits(columns=1)))
    assert "file_bytes = 'more'" in str(refusal(path, guarantee(), TableLimits(file_bytes=100)))


def test_a_parquet_bomb_is_refused_and_its_size_is_not_told(tmp_path: Path) -> None:
    column = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(10**6, dtype="int32")), pa.array(["x" * 100_000])
    )
    pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet", compression="zstd")
    error = refusal(tmp_path / "t.parquet", guarantee(), TableLimits())
    assert {problem.field: problem.value for problem in error.problems}["table.decoded_bytes"] == "more"
