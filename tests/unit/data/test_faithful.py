"""Whatever a table holds, faithful reading trains it as it is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.config import parse_config
from nss_train.config.reading import ColumnReading, ReadingParameters, Types
from nss_train.data.distinct import distinct_columns, to_arrow
from nss_train.data.schema import make_schema
from nss_train.data.source import read_table
from nss_train.errors import DataError, ParameterError

FAITHFUL = ReadingParameters(types=Types.FAITHFUL)
TABLES, TABLES_LONG = 40, 3_400
"""Of each format; the three together are 10,000 and more."""

Table = dict[str, list[Any]]

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LETTERS = st.characters(exclude_categories=("Cs", "Cc"))
TEXTS = st.text(LETTERS, min_size=1, max_size=12) | st.sampled_from(
    ["NA", "None", "null", "nan", "N/A", "-", "a\nb", '"']
)
WRITTEN = {
    "whole": INT64.map(str),
    "padded": st.from_regex(r"0[0-9]{1,5}", fullmatch=True),
    "huge": st.integers(10**17, 10**24).map(str),
    "floats": FLOATS.map(repr),
    "decimals": st.decimals(places=2, allow_nan=False, allow_infinity=False).map(str),
    "phones": st.from_regex(r"\+49[0-9]{3,9}", fullmatch=True),
    "powers": st.from_regex(r"-?[1-9](\.[0-9]{1,4})?[eE][+-]?[0-9]{1,3}", fullmatch=True),
    "flags": st.sampled_from(["true", "false"]),
    "Flags": st.sampled_from(["True", "False"]),
    "spellings": st.sampled_from(["true", "True", "FALSE", "1"]),
    "days": st.dates().map(str),
    "odd": st.sampled_from(["-0", "0", "-0.0", "inf", "NaN", "1_000", "٣", " 7", "1.", ".5", "0x1F", "1,5"]),
    "texts": TEXTS,
}
JSON = {
    "texts": TEXTS | st.just(""),
    "quoted": st.sampled_from(["007", "1152921504606846977", "2024-01-01", "true", "1.50"]),
    "whole": INT64,
    "huge": st.integers(-(10**25), 10**25),
    "floats": FLOATS,
    "mixed": st.integers(-5, 2**60) | FLOATS,
    "flags": st.booleans(),
    "date": st.dates().map(str),
    "modified": st.integers(10**9, 2 * 10**9).map(str),
}
TYPED = {
    pa.int64(): INT64,
    pa.uint8(): st.integers(0, 255),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.bool_(): st.booleans(),
    pa.float64(): FLOATS,
    pa.string(): TEXTS | st.just(""),
    pa.dictionary(pa.int32(), pa.string()): TEXTS,
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.time64("us"): st.times(),
    pa.decimal128(20, 4): st.decimals(-(10**12), 10**12, places=4),
}


def tables(kinds: Mapping[Any, st.SearchStrategy[Any]], gap: Any) -> st.SearchStrategy[dict[Any, list[Any]]]:
    """Some columns of some rows, each of one kind, with gaps or without."""

    def of(chosen: tuple[list[Any], int, bool]) -> st.SearchStrategy[dict[Any, list[Any]]]:
        names, rows, gaps = chosen
        cells = {name: (kinds[name] | st.just(gap)) if gaps else kinds[name] for name in names}
        return st.fixed_dictionaries({n: st.lists(c, min_size=rows, max_size=rows) for n, c in cells.items()})

    names = st.lists(st.sampled_from(list(kinds)), min_size=1, max_size=4, unique=True)
    return st.tuples(names, st.integers(2, 8), st.booleans()).flatmap(of)


def hold(
    check: Callable[[Path, Any], None], found: st.SearchStrategy[Any], folder: Path, *, long: bool
) -> None:
    """Try the check with so many tables."""
    quiet = settings(
        max_examples=TABLES_LONG if long else TABLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    quiet(given(found)(lambda table: check(folder, table)))()


def trained(path: Path, reading: ReadingParameters = FAITHFUL) -> dict[str, list[str]]:
    """The JSON that stands in examples, by column."""
    frame = read_table(path, reading=reading)
    exact = reading.types is Types.FAITHFUL
    columns = distinct_columns(to_arrow(frame, exact=exact), exact=exact)
    return {column.name: [column.texts[code] for code in column.codes] for column in columns}


def write_csv(path: Path, table: Table) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([list(table), *zip(*table.values(), strict=True)])
    return path


def check_csv(folder: Path, table: Table) -> None:
    table = {"row": [f"r{n}" for n in range(len(next(iter(table.values()))))]} | table
    marks = ReadingParameters(types=Types.FAITHFUL, delimiter=",", quote='"', encoding="utf-8")
    for name, texts in trained(write_csv(folder / "t.csv", table), marks).items():
        for cell, text in zip(table[name], texts, strict=True):
            value = json.loads(text)
            said = value if isinstance(value, str) else text
            assert ("" if value is None else said) == (cell.lower() if isinstance(value, bool) else cell)


def check_json(folder: Path, table: Table) -> None:
    path = folder / "t.jsonl"
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for name, texts in trained(path).items():
        for cell, text in zip(table[name], texts, strict=True):
            value = json.loads(text)
            if isinstance(cell, int | float) and isinstance(
                value, str
            ):  # more than a number of 64 bits holds
                assert Decimal(value) == Decimal(repr(cell))
            else:
                assert value == cell
                assert isinstance(value, bool) == isinstance(cell, bool)


def check_parquet(folder: Path, table: dict[pa.DataType, list[Any]]) -> None:
    path = folder / "t.parquet"
    arrays = {str(kind): pa.array(cells, kind) for kind, cells in table.items()}
    pq.write_table(pa.table(arrays), path)
    for (kind, cells), texts in zip(table.items(), trained(path).values(), strict=True):
        for cell, text in zip(cells, texts, strict=True):
            assert json.loads(text) == (cell if cell is None else as_json(cell)), kind


def as_json(cell: Any) -> Any:
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    return f"{cell:f}" if isinstance(cell, Decimal) else cell


def test_a_csv_file_is_trained_to_the_letter(tmp_path: Path, *, long: bool) -> None:
    hold(check_csv, tables(WRITTEN, ""), tmp_path, long=long)


def test_json_lines_are_trained_with_the_values_that_they_hold(tmp_path: Path, *, long: bool) -> None:
    hold(check_json, tables(JSON, None), tmp_path, long=long)


def test_a_parquet_file_is_trained_with_the_values_that_it_holds(tmp_path: Path, *, long: bool) -> None:
    hold(check_parquet, tables(TYPED, None), tmp_path, long=long)


def test_integers_and_booleans_with_gaps_keep_their_types(tmp_path: Path) -> None:
    cells = {"n": ["1", "", "3"], "b": ["True", "", "False"], "f": ["1.5", "", "2.0"]}
    frame = read_table(write_csv(tmp_path / "t.csv", cells), reading=FAITHFUL)
    columns = distinct_columns(to_arrow(frame, exact=True), exact=True)
    assert [column.texts for column in columns] == [
        ["1", "null", "3"],
        ["true", "null", "false"],
        ["1.5", "null", "2.0"],
    ]
    types = [found["type"] for found in make_schema(columns)["properties"].values()]
    assert types == [["integer", "null"], ["boolean", "null"], ["number", "null"]]


def test_a_single_column_is_read_as_text_while_the_others_are_read_as_ever(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {"zip": ["07094", "NA", ""], "n": ["01", "2", ""]})
    found = trained(path, ReadingParameters(columns={"zip": ColumnReading.TEXT}))
    assert found == {"zip": ['"07094"', '"NA"', "null"], "n": ["1.0", "2.0", "null"]}


def test_a_column_of_the_config_that_the_table_lacks_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {"zip": ["1", "2"], "n": ["1", "2"]})
    with pytest.raises(ParameterError, match="did you mean 'zip'"):
        read_table(path, reading=ReadingParameters(columns={"zipp": ColumnReading.TEXT}))


def test_a_json_column_of_texts_and_numbers_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "b": "x"}\n{"a": "1", "b": "y"}\n')
    with pytest.raises(DataError, match=r"a = 'a column of numbers and texts'.*reading.columns: {a: text}"):
        read_table(path, reading=FAITHFUL)


@pytest.mark.parametrize("reading", [{"types": "faithful"}, {"columns": {"zip": "text"}}])
def test_a_private_table_is_read_as_it_is_declared_alone(reading: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"reading\.(types|columns) = .*guarantee.columns"):
        parse_config({"privacy": {"dp_enabled": True}, "reading": reading})
