"""The value of a cell, by its column's type and declarations."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[attr-defined]

from nss_train.contract import TableLimits
from nss_train.data.private.reading import read_private_frame, read_private_table
from nss_train.data.private.table import PrivateTable
from nss_train.data.private.values.cells import is_deeper, quoted
from nss_train.data.private.values.values import written
from nss_train.data.tokenization.distinct_values import json_texts
from nss_train.formats import MARKERS
from tests.unit.data.private.reads import guarantee, texts


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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("type_", ["integer", "number"])
def test_a_long_cell_that_is_almost_a_number_takes_one_pass(type_: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("v,w\n" + "7" * 2**16 + "x,1\n")
    found = read_private_table(table, guarantee({"v": {"type": type_}}), TableLimits(cell_chars=2**20))
    assert texts(found, "v") == ["null"]


def test_a_null_where_none_may_be_takes_its_record_away(csv: Callable[..., PrivateTable]) -> None:
    table = csv(b"v,w\n1,a\nunknown,b\n,c\n", {"v": {"type": "integer", "nullable": False}})
    assert table.null.tolist() == [False, True, True]
    assert texts(table, "w") == ['"a"', "null", "null"]
    assert [table.raw["w"].cells[code] for code in table.raw["w"].codes] == [b"~a", b"", b""]


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


def test_a_time_beyond_the_calendar_takes_only_its_own_cell_away() -> None:
    last = datetime.datetime.max.replace(tzinfo=datetime.timezone(-datetime.timedelta(hours=5)))
    frame = pd.DataFrame({"v": pd.Series([last, "x"], dtype=object), "w": [1, 2]})
    columns = {"v": {"type": "string"}, "w": {"type": "integer"}}
    assert texts(read_private_frame(frame, guarantee(columns)), "v") == ["null", '"x"']


@pytest.mark.parametrize(
    ("text", "deeper"), [("[[1]]", False), ("[[[1]]]", True), ('["[[["]', False), ('["\\"[[["]', False)]
)
def test_levels_are_counted_outside_of_texts(text: str, deeper: bool) -> None:
    assert is_deeper(text, 2) == deeper


def test_a_record_of_brackets_takes_no_longer_where_more_levels_are_allowed() -> None:
    """One record must not spend the time that the whole stage has."""
    few, many = (_spent_s("[" * 2**20, depth) for depth in (1, 60))
    assert many < 8 * few


def _spent_s(text: str, depth: int) -> float:
    began = time.process_time()
    assert is_deeper(text, depth)
    return time.process_time() - began
