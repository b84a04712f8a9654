"""Faithful reading trains any table as it is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.config import parse_config
from nss_train.config.sections.reading import ColumnReading, ReadingParameters, Types
from nss_train.data.schema import make_schema
from nss_train.data.source import read_table
from nss_train.data.tokenization.distinct_values import distinct_columns, to_arrow
from nss_train.errors import DataError, ParameterError
from tests.unit.data.reading.files import write_xlsx

FAITHFUL = ReadingParameters(types=Types.FAITHFUL)
TABLES, TABLES_LONG = 40, 3_400
"""Tables of each format; the long runs of the three together are 10,000 and more."""

Table = dict[str, list[Any]]

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LETTERS = st.characters(exclude_categories=("Cs", "Cc"))
ODD = [
    "NA",
    "None",
    "null",
    "nan",
    "N/A",
    "-",
    "a\nb",
    "a\r\nb",
    '"',
    '""',
    "a,b",
    ";",
    "\t",
    "\ufeff",
    "'",
    " x ",
    "#",
    "\\",
]
TEXTS = st.text(LETTERS, min_size=1, max_size=12) | st.sampled_from(ODD)
NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: name.strip() != "") | st.sampled_from(
    ["a,b", "a\nb", '"', "1", "NA", "nan", "true", "None", "a.1", "index", "{", "e\u0301", "İ"]
)
MEASURES = FLOATS | st.sampled_from([-0.0, 1e308, 5e-324, 1e-13, 0.1 + 0.2, 2.0**53, 1e16])
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
    "measures": MEASURES.map(repr),
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
    "measures": MEASURES,
    "lists": st.lists(INT64 | st.none(), max_size=3),
    "measured": st.lists(MEASURES, max_size=3),
    "objects": st.fixed_dictionaries({"a": TEXTS}, optional={"b": INT64 | st.none(), "c": MEASURES}),
    "deep": st.lists(
        st.fixed_dictionaries({}, optional={"a": st.lists(st.booleans()), "b": TEXTS}), max_size=3
    ),
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
    pa.decimal128(38, 10): st.decimals(-(10**25), 10**25, places=10),
    pa.int8(): st.integers(-128, 127),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False, allow_infinity=False) | st.just(-0.0),
    pa.large_string(): TEXTS,
    pa.dictionary(pa.int8(), pa.int64()): st.integers(0, 99),
    pa.timestamp("s", tz="UTC"): st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0)),
    pa.time32("s"): st.times().map(lambda t: t.replace(microsecond=0)),
    pa.list_(pa.int64()): st.lists(INT64 | st.none(), max_size=3),
    pa.list_(pa.float64()): st.lists(MEASURES, max_size=3),
    pa.struct({"a": pa.string(), "b": pa.int64(), "c": pa.float64()}): st.fixed_dictionaries(
        {"a": TEXTS | st.none(), "b": INT64 | st.none(), "c": MEASURES | st.none()}
    ),
    pa.list_(pa.struct({"a": pa.list_(pa.bool_())})): st.lists(
        st.fixed_dictionaries({"a": st.lists(st.booleans(), max_size=2)}), max_size=2
    ),
    pa.struct({"t": pa.date32(), "d": pa.decimal128(10, 2)}): st.fixed_dictionaries(
        {"t": st.dates(), "d": st.decimals(-(10**6), 10**6, places=2)}
    ),
}


def tables(kinds: Mapping[Any, st.SearchStrategy[Any]], gap: Any) -> st.SearchStrategy[dict[Any, list[Any]]]:
    """Make some columns of some rows, each of one kind, with gaps or without."""

    def of(chosen: tuple[list[Any], int, bool]) -> st.SearchStrategy[dict[Any, list[Any]]]:
        names, rows, gaps = chosen
        cells = {name: (kinds[name] | st.just(gap)) if gaps else kinds[name] for name in names}
        return st.fixed_dictionaries({n: st.lists(c, min_size=rows, max_size=rows) for n, c in cells.items()})

    names = st.lists(st.sampled_from(list(kinds)), min_size=1, max_size=4, unique=True)
    return st.tuples(names, st.integers(2, 8), st.booleans()).flatmap(of)


def named(found: st.SearchStrategy[Table]) -> st.SearchStrategy[Table]:
    """Make the same columns under any names."""
    names = st.lists(NAMES, min_size=4, max_size=4, unique=True)
    return st.tuples(found, names).map(lambda pair: dict(zip(pair[1], pair[0].values(), strict=False)))


def hold(
    check: Callable[[Path, Any], None], found: st.SearchStrategy[Any], folder: Path, *, long: bool
) -> None:
    """Run the check on that many tables."""
    quiet = settings(
        max_examples=TABLES_LONG if long else TABLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    quiet(given(found)(lambda table: check(folder, table)))()


def trained(path: Path, reading: ReadingParameters = FAITHFUL) -> dict[str, list[str]]:
    """Return the JSON that examples contain, by column."""
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
    table = {"the row": [f"r{n}" for n in range(len(next(iter(table.values()))))]} | table
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
                assert bare(value) == bare(cell)
                assert isinstance(value, bool) == isinstance(cell, bool)


def bare(value: Any) -> Any:
    """Return a value without keys that are null: a key that an object lacks is null, as a column's is."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if isinstance(value, dict):
        return {name: bare(one) for name, one in value.items() if one is not None}
    return value


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
    if isinstance(cell, list):
        return [as_json(one) for one in cell]
    if isinstance(cell, dict):
        return {name: as_json(one) for name, one in cell.items()}
    return f"{cell:f}" if isinstance(cell, Decimal) else cell


def test_a_csv_file_is_trained_to_the_letter(tmp_path: Path, *, long: bool) -> None:
    hold(check_csv, named(tables(WRITTEN, "")), tmp_path, long=long)


def test_json_lines_are_trained_with_the_values_that_they_hold(tmp_path: Path, *, long: bool) -> None:
    hold(check_json, named(tables(JSON, None)), tmp_path, long=long)


def test_a_parquet_file_is_trained_with_the_values_that_it_holds(tmp_path: Path, *, long: bool) -> None:
    hold(check_parquet, tables(TYPED, None), tmp_path, long=long)


def test_a_workbook_is_trained_with_the_cells_that_it_holds(tmp_path: Path) -> None:
    rows = [["zip", "n", "word", "x"], ["007", 1, "NA", 0.5], ["010", 2**53, "a", None], ["012", None, "", 2]]
    write_xlsx(tmp_path / "t.xlsx", rows)
    assert trained(tmp_path / "t.xlsx") == {
        "zip": ['"007"', '"010"', '"012"'],
        "n": ["1", str(2**53), "null"],
        "word": ['"NA"', '"a"', "null"],
        "x": ["0.5", "null", "2.0"],
    }


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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": 1, "a": 2}', "an object has 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "an object has 'b' twice"),
        (b'{"a": "\\ud83d"}', "surrogates not allowed"),
        (b'{"a": "\xe9"}', "can't decode byte 0xe9"),
        (b'{"a": NaN}', "NaN is not JSON"),
    ],
)
def test_a_line_that_is_no_json_is_refused_with_its_number(line: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"a": "x"}\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"line 2 is not JSON Lines.*{says}"):
        read_table(tmp_path / "t.jsonl", reading=FAITHFUL)


@pytest.mark.parametrize("reading", [{"types": "faithful"}, {"columns": {"zip": "text"}}])
def test_a_private_table_is_read_as_it_is_declared_alone(reading: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"reading\.(types|columns) = .*guarantee.columns"):
        parse_config({"privacy": {"dp_enabled": True}, "reading": reading})


def test_durations_of_every_format_become_iso_8601(tmp_path: Path) -> None:
    pq.write_table(pa.table({"d": [timedelta(days=1, seconds=5), None]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", reading=FAITHFUL)["d"].tolist() == ["P1DT0H0M5S", None]


def test_all_columns_of_times_that_no_calendar_has_are_refused_by_name(tmp_path: Path) -> None:
    far = pa.array([10**13, 0], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"n": [1, 2], "d": far, "e": far}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"d = None: (.|\n)*e = None: .*\{e: drop\}"):
        read_table(tmp_path / "t.parquet", reading=FAITHFUL)
