"""The format of a table's file is found, or declared, or refused: it is never guessed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather

from nss_train.config.reading import ColumnReading, ReadingParameters, Types
from nss_train.contract import TableLimits
from nss_train.data.reading.dialect import text_chunks
from nss_train.data.source import read_source, read_table
from nss_train.errors import DataError, ParameterError
from tasks.jobs.table import check_table_file

FRAME = pd.DataFrame(
    {"n": range(40), "x": [n + 0.5 for n in range(40)], "city": ["Köln", "Ada, B", 'a "b"', "x;y"] * 10}
)


def written(mark: str = ",", *, quote: str = '"', **options: Any) -> str:
    text = FRAME.to_csv(index=False, sep=mark, quotechar=quote, **options)
    assert isinstance(text, str)
    return text


def zstd(data: bytes) -> bytes:
    made = pa.BufferOutputStream()
    with pa.CompressedOutputStream(made, "zstd") as file:
        file.write(data)
    return bytes(made.getvalue())


def damaged_parquet() -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}).replace_schema_metadata({b"pandas": b"{\n"}), made)
    return made.getvalue()


def parquet(*names: str) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1, 2])] * len(names), names=names), made)
    return made.getvalue()


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, written())
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


def write_xlsx(path: Path, *sheets: list[list[object]]) -> None:
    """Write a minimal workbook: Ecma Office Open XML, part 1, with texts in their cells."""
    start = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    numbers = range(1, len(sheets) + 1)
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r" Type="{rels}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rels}"><sheets>'
        + "".join(f'<sheet name="s{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": "<Relationships"
        ' xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{rels}/worksheet" Target="worksheets/{n}.xml"/>' for n in numbers
        )
        + "</Relationships>",
    }
    for number, rows in zip(numbers, sheets, strict=True):
        cells = "".join(f"<row>{''.join(map(_xlsx_cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/{number}.xml"] = (
            f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, start + part)


def _xlsx_cell(value: object) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value.replace("&", "&amp;")}</t></is></c>'
    return "<c/>" if value is None else f"<c><v>{value}</v></c>"


REFUSED: dict[str, tuple[str, bytes, str]] = {
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
    "names twice": ("t.csv", b"a,b,a\n1,2,3\n1,2,3\n", r"Duplicate(.|\n)*\['a'\]"),
    "a title": ("t.csv", b"Report of 2024\na,b,c\n1,2,3\n4,5,6\n", r"stand above the header"),
    "a title over semicolons": ("t.csv", b"Report\na;b\n1;2\n3;4\n5;6\n", r"stand above the header"),
    "a title with commas": ("t.csv", b"Report,,\na,b,c\n1,2,3\n", r"column 2 = '': .*above the header"),
    "two delimiters": ("t.csv", b"a;b,c\n1;2,3\n1;2,4\n", r"reading.delimiter(.|\n)*comma or semicolon"),
    "colons": ("t.csv", b"a:b\n1:2\n3:4\n", r"separated by :: set reading.delimiter"),
    "spaces": ("t.txt", b"a b c\n1 2 3\n4 5 6\n", r"separated by space: set reading.delimiter"),
    "two columns with spaces": ("t.txt", b"h v\n1 a\n2 b\n", r"separated by space: set reading.delimiter"),
    "a comma or a point": ("t.csv", b"a;b\n1;2.847\n2;3.125\n", r"b: 2.847(.|\n)*reading.decimal"),
    "a comma and a point": ("t.csv", b"a;b\n1,5;2.8\n2,5;3.1\n", r"a: 1,5(.|\n)*b: 2.8"),
    "letters of an unknown alphabet": (
        "t.csv",
        b"a,b\n1,\xe9\xd6\xd0\n2,\x9d\n",
        r"reading.encoding: cp1252",
    ),
    "two files in an archive": ("t.zip", zipped("a.csv", "b.csv"), r"holds 2 files"),
    "an archive of something else": ("t.zip", zipped("a.exe"), r"holds 'a.exe'"),
    "a bzip2 file": ("t.csv", bz2.compress(b"a,b\n1,2\n3,4\n"), r"the file is compressed"),
    "an empty bzip2 file": ("t.csv", bz2.compress(b""), r"the file is compressed"),
    "an xz file": ("t.csv", lzma.compress(b"a,b\n1,2\n3,4\n"), r"the file is compressed"),
    "a name that says gzip": ("t.csv.gz", b"a,b\n1,2\n", r"not packed as .gz"),
    "half of a gzip": ("t.csv.gz", gzip.compress(b"a,b\n" * 99)[:-9], r"cannot be unpacked"),
    "a zip that is newer than this": (
        "t.zip",
        zipped("a.csv").replace(b"\x14\0", b"\xf0\0"),
        r"cannot be unpacked",
    ),
    "damaged metadata": ("t.parquet", damaged_parquet(), r"not a Parquet file"),
    "a damaged zip": ("t.zip", zipped("a.csv")[:60], r"cannot be unpacked"),
    "an array of numbers": ("t.json", b"[1, 2, 3]", r"1 is no object"),
    "an array that ends early": ("t.json", b'[{"a": 1}, {"a": 2', r"not an array"),
    "something after an array": ("t.json", b'[{"a": 1}, {"a": 2}] 3', r"'3' follows"),
    "an object over many lines": ("t.json", b'{\n"a": 1\n}\n', r"line 1 = '{': not one JSON object a line"),
    "a number of 100 bits": (
        "t.jsonl",
        b'{"a": 1}\n{"a": 1' + b"0" * 30 + b"}\n",
        r"a = (.|\n)*write it as text",
    ),
    "an object that holds the table": ("t.json", b'{"data": [{"a": 1}, {"a": 2}]}', r"a single object"),
    "a name twice in an object": ("t.jsonl", b'{"a": 1, "a": 2}\n' * 2, r"a.* twice"),
    "half of a surrogate pair": ("t.jsonl", b'{"a": "\\ud83d"}\n' * 2, r"surrogate"),
    "JSON Lines that are named CSV": (
        "t.csv",
        b'{"a": 1,"b": 2}\n{"a": 2,"b": 3}\n',
        r"begins as JSON Lines",
    ),
    "JSON that is named CSV": ("t.csv", b'[{"a": 1,"b": 2},\n{"a": 2,"b": 3}]', r"begins as JSON"),
    "a page of the web": ("t.csv", b"<!DOCTYPE html>\n<html>Not found, sorry</html>\n", r"begins as HTML"),
    "a first line of Excel's": ("t.csv", b"sep=;\na;b\n1;2\n3;4\n", r"is Excel's and no header"),
    "columns of a fixed width": ("t.txt", b"  a   b  c\n 10  2  3\n  4 50  6\n", r"runs of spaces"),
    "letters of Japan": ("t.csv", "id,都市\n1,東京\n2,大阪\n".encode("cp932"), r"reading.encoding"),
    "a Parquet column without a name": ("t.parquet", parquet("", "a"), r"column 1 = ''"),
    "Parquet columns of one name": ("t.parquet", parquet("a", "a"), r"Duplicate"),
    "a Parquet column that pandas named": ("t.parquet", parquet("Unnamed: 0"), r"column 1 = 'Unnamed: 0'"),
    "a JSON column that pandas named": ("t.jsonl", b'{"Unnamed: 0": 1}\n' * 3, r"column 1 = 'Unnamed: 0'"),
    "no Arrow file": ("t.arrow", b"ARROW1\0\0" + b"x" * 50, r"not an Arrow file"),
    "no workbook": ("t.xlsx", b"PK\x03\x04" + b"x" * 50, r"not an XLSX workbook"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_table_or_could_be_several_is_refused_with_the_place(kind: str, tmp_path: Path) -> None:
    name, content, says = REFUSED[kind]
    (tmp_path / name).write_bytes(content)
    for limits in (None, TableLimits()):
        with pytest.raises(DataError, match=says):
            read_table(tmp_path / name, limits)


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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a file of the kind of its suffix, with a nameless index where pandas or R would write one."""
    match path.suffix:
        case ".csv":
            frame.to_csv(path)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case ".parquet":
            frame.to_parquet(path)
        case ".feather":
            feather.write_feather(pa.Table.from_pandas(frame), str(path))
        case _:
            write_xlsx(
                path, [["", *frame.columns], *([n, *row] for n, row in enumerate(frame.values.tolist()))]
            )
    return path


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


NAMES = {
    "cp1252": "Müller Köln größer als üblich",
    "cp1250": "Łukasz Łódź Małgorzata Gdańsk",
    "cp1251": "Иван Москва",
    "cp1253": "Αθήνα Γιώργος",
    "cp1254": "İstanbul Şişli Ağrı",
    "gb18030": "北京 中国 上海 王小明",
    "shift_jis": "東京 日本 大阪 カタカナ",
    "mac_roman": "Müller Hélène",
    "cp850": "Müller Köln",
}


@pytest.mark.parametrize("encoding", NAMES)
def test_no_letter_is_ever_read_as_another(encoding: str, tmp_path: Path) -> None:
    words = NAMES[encoding].split()
    text = "n,word\n" + "".join(f"{number},{word}\n" for number, word in enumerate(words * 5))
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    if encoding == "cp1252":
        assert read_table(tmp_path / "t.csv")["word"].tolist() == words * 5
    else:
        with pytest.raises(DataError, match=r"not UTF-8 text; it may be .*reading\.encoding"):
            read_table(tmp_path / "t.csv")
    named = read_table(tmp_path / "t.csv", None, ReadingParameters(encoding=encoding))
    assert named["word"].tolist() == words * 5


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "undefined", "a\0b", "punycode", "idna"])
def test_an_encoding_that_nobody_knows_is_the_config_s_fault(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(ParameterError, match=r"reading.encoding = "):
        read_table(tmp_path / "t.csv", None, ReadingParameters(encoding=encoding))


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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_two_sheets_with_cells_are_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    rows: list[list[object]] = [["a", "b"], [1, "x"], [2, None]]
    write_xlsx(tmp_path / "t.xlsx", rows, [])
    assert read_table(tmp_path / "t.xlsx", TableLimits())["a"].tolist() == [1, 2]
    write_xlsx(tmp_path / "t.xlsx", rows, rows)
    with pytest.raises(DataError, match=r"2 do \(s1, s2\)"):
        read_table(tmp_path / "t.xlsx", TableLimits())


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([["Report", None], ["a", "b"], [1, 2], [3, 4]], "column 2 = ''"),
        ([["a", "b"], [1, 2], [3, 4, 5]], "column 3 = ''"),
        ([["a", "a"], [1, 2], [3, 4]], r"\['a'\]"),
        ([["a", "b"]], "has 0 rows"),
    ],
)
def test_a_sheet_whose_rows_do_not_fit_is_refused(
    rows: list[list[object]], says: str, tmp_path: Path
) -> None:
    write_xlsx(tmp_path / "t.xlsx", rows)
    with pytest.raises(DataError, match=says):
        read_table(tmp_path / "t.xlsx", TableLimits())


LIMITS = TableLimits(file_bytes=2**16, rows=1_000, expansion=20, small_bytes=2**12, decoded_bytes=2**18)


def _feather_bomb(path: Path) -> None:
    table = pa.table({"a": pa.array([0] * 900), "b": pa.array(["x" * 1_000] * 900)})
    feather.write_feather(table, str(path), compression="zstd")


def _xlsx_bomb(path: Path) -> None:
    write_xlsx(path, [["a"], ["x" * 2**20], ["y"]])


def _json_bomb(path: Path) -> None:
    path.write_text("[" + ", ".join(json.dumps({"a": n}) for n in range(2_000)) + "]")


def _gzip_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * 10_000))


def _zstd_bomb(path: Path) -> None:
    path.write_bytes(zstd(b"a,b\n" + b"0,0\n" * 100_000))


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "t.csv.gz": (_gzip_bomb, "expansion"),
    "t.csv.zst": (_zstd_bomb, "file_bytes|table.expansion"),
    "t.feather": (_feather_bomb, "decoded_bytes"),
    "t.xlsx": (_xlsx_bomb, "expansion"),
    "t.json": (_json_bomb, "rows"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_packed_file_is_not_unpacked_beyond_its_limits(name: str, tmp_path: Path) -> None:
    make, limit = BOMBS[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=rf"table\.{limit}"):
        read_table(tmp_path / name, LIMITS)


def test_a_name_that_begins_as_bzip2_does_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("BZh,n\nx,1\ny,2\n")
    check_table_file(tmp_path / "t.csv")
    assert list(read_table(tmp_path / "t.csv").columns) == ["BZh", "n"]
