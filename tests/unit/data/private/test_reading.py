"""The value of a cell by its column's type, the bytes that are a place, and reasons to refuse a file."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[attr-defined]

from nss_train.config.guarantee import GuaranteeParameters
from nss_train.contract import TableLimits
from nss_train.data.private.reading import read_private_frame, read_private_table
from nss_train.data.private.table import PrivateTable
from nss_train.data.private.values.cells import quoted
from nss_train.data.private.values.values import written
from nss_train.data.tokenization.distinct_values import json_texts
from nss_train.errors import DataError, ParameterError, UserError
from nss_train.formats import MARKERS

SECRET = "Meier"


def guarantee(columns: dict[str, Any] | None = None, **more: Any) -> GuaranteeParameters:
    return GuaranteeParameters.model_validate({"columns": columns or {}, **more})


def texts(table: PrivateTable, name: str) -> list[str]:
    column = next(column for column in table.columns if column.name == name)
    return [column.texts[code] for code in column.codes]


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., PrivateTable]:
    def read(content: bytes, columns: dict[str, Any] | None = None, **more: Any) -> PrivateTable:
        (tmp_path / "t.csv").write_bytes(content)
        return read_private_table(
            tmp_path / "t.csv", guarantee(columns, **more), TableLimits(cell_chars=1_000)
        )

    return read


def of_type(csv: Callable[..., PrivateTable], cell: str, declared: dict[str, Any]) -> str:
    """Return a CSV cell as text; another cell has a value, so that the record is not without effect."""
    return texts(csv(f"v,w\n{cell},1\n".encode(), {"v": declared}), "v")[0]


CELLS = [
    ("integer", "63", "63"),
    ("integer", "63.0", "63"),
    ("integer", "00501", "501"),
    ("integer", "33.5", "null"),
    ("integer", "9223372036854775807", "9223372036854775807"),
    ("integer", "9223372036854775808", "null"),
    ("integer", "-9223372036854775808", "-9223372036854775808"),
    ("integer", "unknown", "null"),
    ("number", "0.12345678912", "0.1234567891"),
    ("number", "63", "63.0"),
    ("number", "inf", "null"),
    ("number", "1e999", "null"),
    ("number", "1_000", "null"),
    ("boolean", "TRUE", "true"),
    ("boolean", "False", "false"),
    ("boolean", "1", "null"),
    ("string", "00501", '"00501"'),
    ("string", "a/b", '"a\\/b"'),
    ("string", "NA", "null"),
    ("datetime", "31.1.2024", '"31.1.2024"'),
    ("json", '"[1, {""b"": null}]"', '[1,{"b":null}]'),
    ("json", "[[[[[[[[1]]]]]]]]", "[[[[[[[[1]]]]]]]]"),
    ("json", "[[[[[[[[[1]]]]]]]]]", "null"),
    ("json", "7", "null"),
    ("any", "63", "63"),
    ("any", "1.50", "1.50"),
    ("any", "00501", '"00501"'),
    ("any", "true", "true"),
    ("any", "True", '"True"'),
    ("any", "[1]", '"[1]"'),
    ("any", "12345678901234567890123", "12345678901234567890123"),
]


@pytest.mark.parametrize(("type_", "cell", "text"), CELLS)
def test_a_cell_of_csv_is_written_as_its_type(
    csv: Callable[..., PrivateTable], type_: str, cell: str, text: str
) -> None:
    assert of_type(csv, cell, {"type": type_}) == text


DECLARED = [
    ({"type": "integer", "minimum": 17.5}, "3", "18"),
    ({"type": "integer", "maximum": 99.5}, "120", "99"),
    ({"type": "number", "maximum": 99.5}, "120", "99.5"),
    ({"minimum": 0}, "-3", "0"),
    ({"minimum": 0}, "unknown", '"unknown"'),
    ({"type": "integer", "categories": [1, 2]}, "3", "null"),
    ({"type": "integer", "categories": [1, 2], "other": 9}, "3", "9"),
    ({"categories": ["1", "None"], "other": "x"}, "1", '"1"'),
    ({"categories": ["1", "None"], "other": "x"}, "None", '"None"'),
    ({"categories": ["1", "None"], "other": "x"}, "2", '"x"'),
    ({"type": "datetime", "format": "%Y-%m-%d"}, "2024-02-30", "null"),
    ({"type": "datetime", "format": "%Y-%m-%d"}, "2024-02-28", '"2024-02-28"'),
]


@pytest.mark.parametrize(("declared", "cell", "text"), DECLARED)
def test_a_cell_keeps_to_what_is_declared(
    csv: Callable[..., PrivateTable], declared: dict[str, Any], cell: str, text: str
) -> None:
    assert of_type(csv, cell, declared) == text


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize(
    ("declared", "cell", "text"),
    [
        ({"type": "integer"}, "0" * 5_000 + "7", "7"),
        ({"type": "integer"}, "0" * 5_000 + ".0", "0"),
        ({"type": "any", "minimum": -1, "maximum": 1}, "1e-99999999999999999999", "1e-99999999999999999999"),
        ({"categories": [1], "other": 9}, "0e99999999999999999999", "9"),
    ],
)
def test_no_number_is_too_long_or_too_small_to_be_read(
    sign: str, declared: dict[str, Any], cell: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"v,w\n{sign}{cell},1\n")
    (found,) = texts(read_private_table(tmp_path / "t.csv", guarantee({"v": declared})), "v")
    assert found.removeprefix("-") == text


@pytest.mark.parametrize("form", ["%Y %Y", "%", "%Q", "%-d", "%G-%V"])
def test_a_format_that_reads_no_time_is_refused_whatever_the_cells(form: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("v\n\n")
    declared = guarantee({"v": {"type": "datetime", "format": form}})
    with pytest.raises(ParameterError, match="strptime cannot read"):
        read_private_table(tmp_path / "t.csv", declared)


def test_a_null_where_none_may_be_takes_its_record_away(csv: Callable[..., PrivateTable]) -> None:
    table = csv(b"v,w\n1,a\nunknown,b\n,c\n", {"v": {"type": "integer", "nullable": False}})
    assert table.null.tolist() == [False, True, True]
    assert texts(table, "w") == ['"a"', "null", "null"]
    assert [table.raw["w"].cells[code] for code in table.raw["w"].codes] == [b"~a", b"", b""]


LINES = {
    b"1,2\n3,4\n": [False, False],
    b"1,2\n3,4": [False, False],
    b"1,2\n\n": [False, True],
    b"\n": [True],
    b"": [],
    b"1,2\r\n,\r\n \t,\r\n": [False, True, True],
    b'1,"open\n3,4\n': [True, False],
    b'1,"a""b"\n': [False],
    b'1,a"b\n': [True],
    b"1,2,3\n": [True],
    b"1\n": [False],
    b"1,\xff\n": [True],
    b"1,\0\n": [True],
    b"1,a\rb\x0b\xe2\x80\xa8\n": [False],
    b"1," + b"x" * 1_001 + b"\n": [True],
    b"NA,null\n": [True],
}


@pytest.mark.parametrize("body", LINES)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_bytes_of_a_file_are_so_many_places(
    csv: Callable[..., PrivateTable], body: bytes, bom: bytes
) -> None:
    table = csv(bom + b"v,w\n" + body)
    assert table.null.tolist() == LINES[body]
    assert [column.name for column in table.columns] == ["v", "w"]


def test_cells_may_hold_line_breaks_where_the_config_says_so(csv: Callable[..., PrivateTable]) -> None:
    content = b'v,"w"\r\n1,"a\r\nb"\r\n\r\n2,"open\n3,x\n'
    table = csv(content, multiline_cells=True)
    assert texts(table, "w") == ['"a\\r\\nb"', "null", "null"]
    assert table.null.tolist() == [False, True, True]


def test_missing_cells_are_not_empty_ones(csv: Callable[..., PrivateTable]) -> None:
    raw = csv(b'v,w\n1,""\n1\n').raw["w"]
    assert [raw.cells[code] for code in raw.codes] == [b"~", b""]


def test_texts_and_numbers_are_written_as_the_reference_writes_them() -> None:
    chars = [chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF]
    assert list(map(quoted, chars)) == json_texts(chars)
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal(5_000) * 10.0 ** rng.integers(-300, 300, 5_000)).tolist()
    assert list(map(written, numbers)) == json_texts(numbers)


def test_the_markers_are_those_of_pandas() -> None:
    assert MARKERS == STR_NA_VALUES


def test_json_lines_keep_numbers_as_they_stand(tmp_path: Path) -> None:
    cells = [
        "1.50",
        "12345678901234567890123",
        '"00501"',
        "NaN",
        "1e999",
        '{"b":1.0,"a":[null,"x/y"]}',
        '"NA"',
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"v": {cell}, "w": 1}}\n' for cell in cells))
    nested = '{"b":1.0,"a":[null,"x\\/y"]}'
    assert texts(read_private_table(path, guarantee({"v": {}, "w": {}})), "v") == [
        *("1.50", "12345678901234567890123", '"00501"', "null", "null", nested, '"NA"')
    ]


def test_parquet_is_written_by_its_schema(tmp_path: Path) -> None:
    moment = pa.timestamp("ms", tz="Europe/Berlin")
    table = pa.table(
        {
            "i": pa.array([2**62 + 1, None]),
            "d": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(10, 2)),
            "t": pa.array([1_700_000_000_001, None], moment),
            "day": pa.array([datetime.date(2024, 1, 31), None]),
            "l": pa.array([[1, None], None]),
            "m": pa.array([[("a", 1.5)], None], pa.map_(pa.string(), pa.float64())),
            "s": pa.array([{"x": None, "y": "a/b"}, None]),
            "c": pa.array(["NA", None]).dictionary_encode(),
            "f": pa.array([float("nan"), None]),
            "__index_level_0__": pa.array([7, 8]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    read = read_private_table(tmp_path / "t.parquet", guarantee())
    assert {column.name: texts(read, column.name)[0] for column in read.columns} == {
        "i": "4611686018427387905",
        "d": "1.50",
        "t": '"2023-11-14T22:13:20.001Z"',
        "day": '"2024-01-31"',
        "l": "[1,null]",
        "m": '{"a":1.5}',
        "s": '{"x":null,"y":"a\\/b"}',
        "c": '"NA"',
        "f": "null",
    }
    assert read.null.tolist() == [False, True]


def test_a_frame_is_read_by_its_cells_and_not_by_its_dtypes() -> None:
    declared = guarantee({"v": {"type": "integer"}, "w": {"type": "string"}})
    whole = read_private_frame(pd.DataFrame({"v": [63, 2**53 + 2], "w": [1, 2]}), declared)
    gaps = read_private_frame(pd.DataFrame({"v": [63, 2**53 + 2, None], "w": [1, 2, None]}), declared)
    for name in ("v", "w"):
        assert texts(gaps, name)[:2] == texts(whole, name)
    assert texts(whole, "v") == ["63", "null"]


def test_a_time_beyond_the_calendar_takes_only_its_own_cell_away() -> None:
    last = datetime.datetime.max.replace(tzinfo=datetime.timezone(-datetime.timedelta(hours=5)))
    frame = pd.DataFrame({"v": pd.Series([last, "x"], dtype=object), "w": [1, 2]})
    columns = {"v": {"type": "string"}, "w": {"type": "integer"}}
    assert texts(read_private_frame(frame, guarantee(columns)), "v") == ["null", '"x"']


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


@pytest.mark.parametrize("beginning", [b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"BZh91AY&SY"])
def test_a_first_record_with_the_bytes_of_a_packed_file_is_void_and_refuses_no_other(
    beginning: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(beginning + b' odd\n{"v": 1}\n{"v": 2}\n')
    table = read_private_table(path, guarantee({"v": {"type": "integer"}}))
    assert table.null.tolist() == [True, False, False]


def test_json_lines_without_a_line_are_a_table_of_no_record(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    table = read_private_table(tmp_path / "t.jsonl", guarantee({"a": {"type": "integer"}}))
    assert len(table) == 0
    assert [column.name for column in table.columns] == ["a"]


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
