"""JSON arrays and JSON Lines hold one object for each row, or are refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from nss_train.data.reading.json_array import as_lines
from nss_train.data.reading.json_lines import exact_objects, read_lines
from nss_train.errors import DataError

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "an array of numbers": ("t.json", b"[1, 2, 3]", r"1 is no object"),
    "an array that ends early": ("t.json", b'[{"a": 1}, {"a": 2', r"not an array"),
    "something after an array": ("t.json", b'[{"a": 1}, {"a": 2}] 3', r"'3' follows"),
    "an object over many lines": (
        "t.json",
        b'{\n"a": 1\n}\n',
        r"line 1 = '{': not one JSON object a line.*over several lines",
    ),
    "nulls alone": ("t.jsonl", b"null\nnull\n", r"line 1 = 'null': no object(.|\n)*line 2 = 'null'"),
    "a null among objects": ("t.jsonl", b'{"a": 1}\nnull\n{"a": 2}\n', r"line 2 = 'null': no object"),
    "numbers": ("t.jsonl", b"5\n6\n", r"line 1 = '5': no object"),
    "a number of 100 bits": (
        "t.jsonl",
        b'{"a": 1}\n{"a": 1' + b"0" * 30 + b"}\n",
        r"a = (.|\n)*write it as text",
    ),
    "an object that holds the table": ("t.json", b'{"data": [{"a": 1}, {"a": 2}]}', r"a single object"),
    "a name twice in an object": ("t.jsonl", b'{"a": 1, "a": 2}\n' * 2, r"a.* twice"),
    "half of a surrogate pair": ("t.jsonl", b'{"a": "\\ud83d"}\n' * 2, r"surrogate"),
    "a JSON column that pandas named": ("t.jsonl", b'{"Unnamed: 0": 1}\n' * 3, r"column 1 = 'Unnamed: 0'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_json_that_is_no_table_is_refused_with_the_place(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


def test_an_array_becomes_a_line_for_each_object_in_a_copy_that_is_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('[{"a":\n 1, "t": "x\\ny"},\r\n{"a": 2}\n]\n')
    with as_lines(tmp_path / "t.json") as (lines, is_array):
        assert is_array
        assert [one["a"] for one in read_lines(lines, "t.json").to_dict("records")] == [1, 2]
        assert lines.read_bytes().count(b"\n") == 2
    assert not lines.exists()


def test_an_object_that_is_longer_than_a_block_is_one_line(tmp_path: Path) -> None:
    long = "x" * (2**20 + 2**19)
    (tmp_path / "t.json").write_text(f'[{{"a": 1}}, {{"a": "{long}"}}, {{"a": 3}}]')
    with as_lines(tmp_path / "t.json") as (lines, _):
        assert [one["a"] for one in exact_objects(lines)] == [1, long, 3]


def test_numbers_of_exact_objects_keep_all_their_digits(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 0.1000000000000000055511151231257827, "b": 1e400}\n')
    (found,) = exact_objects(tmp_path / "t.jsonl")
    assert found == {"a": Decimal("0.1000000000000000055511151231257827"), "b": Decimal("1e400")}


def test_a_line_that_is_no_object_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n[2]\n')
    with pytest.raises(DataError, match="line 3"):
        list(exact_objects(tmp_path / "t.jsonl"))
