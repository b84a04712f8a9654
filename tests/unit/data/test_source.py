"""The format of a table's file is found, or declared, or refused: it is never guessed."""

from __future__ import annotations

import csv
import gzip
import io
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from nss_train.config.sections.reading import ColumnReading, ReadingParameters, Types
from nss_train.contract import TableLimits
from nss_train.data.source import read_source, read_table
from nss_train.errors import DataError, ParameterError

from .reading.files import FRAME, Refused, check_refused, parquet, write, write_xlsx, written, zipped, zstd


def damaged_parquet() -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}).replace_schema_metadata({b"pandas": b"{\n"}), made)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("t.csv", written().encode(), "comma, UTF-8"),
        ("t.txt", written().encode("utf-8-sig"), "comma, UTF-8"),
        ("t.csv", written(";").encode(), "semicolon, UTF-8"),
        ("t.csv", written(";", decimal=",").encode(), "semicolon, UTF-8, decimal comma"),
        ("t.csv", written("\t").encode(), "tab, UTF-8"),
        ("t.tsv", written("\t").encode(), "tab, UTF-8"),
        ("t.csv", written("|").encode(), "pipe, UTF-8"),
        ("t.csv", written(quoting=csv.QUOTE_ALL, quote="'").encode(), "comma, UTF-8, quote '"),
        ("t.csv", written().encode("utf-16"), "comma, UTF-16"),
        ("t.csv", written().encode("utf-32"), "comma, UTF-32"),
        ("t.csv", written().encode("cp1252"), "comma, CP1252"),
        ("t.csv.gz", gzip.compress(written().encode()), "comma, UTF-8, gz"),
        ("t.csv.gz", gzip.compress(written(";").encode("cp1252")), "semicolon, CP1252, gz"),
        ("t.tsv.zst", zstd(written("\t").encode()), "tab, UTF-8, zst"),
        ("t.csv.zip", zipped("a.csv"), "comma, UTF-8, zip"),
        ("t.zip", zipped("a/b.csv", "__MACOSX/._b.csv"), "comma, UTF-8, zip"),
        ("t.json", FRAME.to_json(orient="records").encode(), "JSON array"),
        ("t.json", FRAME.to_json(orient="records", indent=2).encode(), "JSON array"),
        ("t.jsonl", FRAME.to_json(orient="records", lines=True).encode(), "JSON Lines"),
        ("t.jsonl", FRAME.to_json(orient="records", lines=True).encode("utf-8-sig"), "JSON Lines"),
    ],
)
def test_a_table_is_read_whatever_it_is_written_with(
    name: str, content: bytes, how: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    source = read_source(tmp_path / name, TableLimits())
    pd.testing.assert_frame_equal(source.frame, FRAME)
    assert source.read_as == f"{how}, 3 columns, 40 rows"


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow", "xlsx"])
def test_a_table_with_types_is_read_with_them(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        FRAME.to_parquet(path)
    elif suffix == "xlsx":
        write_xlsx(path, [list(FRAME.columns), *FRAME.values.tolist()])
    else:
        feather.write_feather(pa.Table.from_pandas(FRAME), str(path), compression="zstd")
    frame = read_table(path, TableLimits())
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=suffix != "xlsx")


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_an_index_with_a_name_is_a_column_and_one_without_is_none(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    for frame, expected in (
        (FRAME.set_index("city"), ["city", "n", "x"]),
        (FRAME.iloc[::2], ["n", "x", "city"]),
    ):
        table = pa.Table.from_pandas(frame)
        pq.write_table(table, path) if suffix == "parquet" else feather.write_feather(table, str(path))
        read = read_table(path, TableLimits())
        assert (list(read.columns), len(read)) == (expected, len(frame))
        assert isinstance(read.index, pd.RangeIndex)


REFUSED: dict[str, Refused] = {
    "damaged metadata": ("t.parquet", damaged_parquet(), r"not a Parquet file"),
    "a Parquet column without a name": ("t.parquet", parquet("", "a"), r"column 1 = ''"),
    "Parquet columns of one name": ("t.parquet", parquet("a", "a"), r"Duplicate"),
    "a Parquet column that pandas named": ("t.parquet", parquet("Unnamed: 0"), r"column 1 = 'Unnamed: 0'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_parquet_file_without_a_table_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


@pytest.mark.parametrize("types", [None, Types.NSS, Types.FAITHFUL])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "feather", "xlsx"])
def test_a_table_without_a_dropped_column_is_the_table_that_never_had_it(
    suffix: str, types: Types | None, tmp_path: Path
) -> None:
    whole = FRAME.assign(
        zeros=[f"{n:03}" for n in range(40)]
    )  # refused as NSS reads it in CSV, if it were kept
    nameless = {"": ColumnReading.DROP} if suffix in ("csv", "xlsx") else {}

    def read(frame: pd.DataFrame, **drop: ColumnReading) -> pd.DataFrame:
        reading = ReadingParameters(types=types, columns=drop | nameless)
        return read_table(write(frame, tmp_path / f"t.{suffix}"), TableLimits(), reading)

    found = read(whole, zeros=ColumnReading.DROP, n=ColumnReading.DROP)
    pd.testing.assert_frame_equal(found, read(FRAME.drop(columns="n")))
    assert list(found) == ["x", "city"]


def test_a_column_of_bytes_can_be_dropped(tmp_path: Path) -> None:
    path = write(FRAME.assign(photo=b"x"), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"photo = (.|\n)*reading.columns: \{photo: drop\}"):
        read_table(path)
    reading = ReadingParameters(columns={"photo": ColumnReading.DROP})
    pd.testing.assert_frame_equal(read_table(path, reading=reading), FRAME)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "feather", "xlsx"])
@pytest.mark.parametrize("types", [None, Types.FAITHFUL])
def test_a_dropped_column_that_is_not_there_is_named(
    suffix: str, types: Types | None, tmp_path: Path
) -> None:
    path = write(FRAME, tmp_path / f"t.{suffix}")
    columns = dict.fromkeys(("", "cty") if suffix in ("csv", "xlsx") else ("cty",), ColumnReading.DROP)
    with pytest.raises(ParameterError, match="reading.columns = 'cty': did you mean 'city'"):
        read_table(path, reading=ReadingParameters(types=types, columns=columns))


def test_a_table_of_which_no_column_is_left_is_refused(tmp_path: Path) -> None:
    path = write(FRAME, tmp_path / "t.jsonl")
    with pytest.raises(DataError, match="no columns, or all of them are dropped"):
        read_table(path, reading=ReadingParameters(columns=dict.fromkeys(FRAME, ColumnReading.DROP)))


DECLARED: list[tuple[bytes, dict[str, str], dict[str, list[Any]]]] = [
    (b"a;b\n1;2.847\n2;3.125\n", {"decimal": "."}, {"a": [1, 2], "b": [2.847, 3.125]}),
    (b"a;b\n1;2.847\n2;3.125\n", {"decimal": ",", "thousands": "."}, {"a": [1, 2], "b": [2847, 3125]}),
    (b"a;b\n1;2.847\n2;3.125\n", {"thousands": "."}, {"a": [1, 2], "b": [2847, 3125]}),
    (b"a;b,c\n1;2,3\n2;2,4\n", {"delimiter": ";"}, {"a": [1, 2], "b,c": [2.3, 2.4]}),
    (b'a,b\n1,"83,5"\n2,"1,0"\n', {"decimal": ","}, {"a": [1, 2], "b": [83.5, 1.0]}),
    (b'a,b\n1,"6,226"\n2,"1,000"\n', {"thousands": ","}, {"a": [1, 2], "b": [6226, 1000]}),
    (b"a:b\n1:x\n2:y\n", {"delimiter": ":"}, {"a": [1, 2], "b": ["x", "y"]}),
    ("a,b\n1,Łódź\n2,y\n".encode("cp1250"), {"encoding": "cp1250"}, {"a": [1, 2], "b": ["Łódź", "y"]}),
    (b"a,b\n1,$x,y$\n2,z\n", {"quote": "$"}, {"a": [1, 2], "b": ["x,y", "z"]}),
]


@pytest.mark.parametrize(("content", "declared", "expected"), DECLARED)
def test_what_is_declared_decides(
    content: bytes, declared: dict[str, str], expected: dict[str, list[Any]], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    frame = read_table(tmp_path / "t.csv", None, ReadingParameters(**declared))
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected))


@pytest.mark.parametrize(
    ("name", "content", "declared", "says"),
    [
        ("t.csv", b"a,b\n1,2\n3,4\n", {"delimiter": ";"}, "separated by comma"),
        ("t.csv", written().encode("utf-16"), {"encoding": "utf-8"}, "byte-order mark of UTF-16"),
        ("t.csv", written().encode("cp1252"), {"encoding": "utf-8"}, "not UTF-8 text"),
        ("t.csv", b"a;b\n1;83.5\n2;1.0\n", {"decimal": ","}, "column b holds (83.5|1.0)"),
        ("t.jsonl", b'{"a": 1}\n{"a": 2}\n', {"delimiter": ";"}, "the file is JSON, which has none"),
    ],
)
def test_a_declaration_that_the_file_contradicts_is_one_clear_error(
    name: str, content: bytes, declared: dict[str, str], says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_table(tmp_path / name, None, ReadingParameters(**declared))
    assert [problem.field for problem in caught.value.problems] == [f"reading.{next(iter(declared))}"]


def test_a_path_that_is_no_regular_file_is_refused_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, said in {"folder": "a folder", "pipe": "no regular file", "none": "no such file"}.items():
        with pytest.raises(DataError, match=said):
            read_source(tmp_path / f"{name}.csv")
