"""The records of a file, by its format."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nss_train.data.private.reading import read_private_frame, read_private_table
from nss_train.data.private.table import PrivateTable
from tests.unit.data.private.reads import guarantee, texts

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
