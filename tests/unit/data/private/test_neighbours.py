"""A change of one record changes no byte of another, whatever the table, whatever the record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters, PublicColumn
from nss_train.contract import TableLimits
from nss_train.data.private import reading
from nss_train.data.private.files import csv_lines, frame_cells, lines
from nss_train.data.private.files.json_lines import keys
from nss_train.data.private.values import conversion
from nss_train.data.private.values.coding import AsRead
from nss_train.data.private.values.rules import VOID, Rule
from tests.unit.data.private import tables
from tests.unit.data.private.tables import NAMES, Edit, Read, moved, reader

PAIRS, LONG_PAIRS = 80, 5_000
"""Pairs of each format, in short and in long runs."""
EDITS = ("null out", "insert", "delete", "replace", "duplicate")

Drawn = tuple[list[Any], Edit]


def edited(
    draw: st.DrawFn,
    records: st.SearchStrategy[Any],
    nulls: Sequence[Any],
    odd: st.SearchStrategy[Any] | None = None,
) -> Drawn:
    """Draw some records, and an edit of one of them."""
    others = records if odd is None else odd
    found = draw(st.lists(records, min_size=2, max_size=6))
    kind = draw(st.sampled_from(EDITS))
    place = draw(st.integers(0, len(found) - 1))
    there = {
        "null out": lambda: draw(st.sampled_from(nulls)),
        "insert": lambda: draw(others),
        "replace": lambda: draw(others),
        "duplicate": lambda: found[place],
    }
    taken = 0 if kind in ("insert", "duplicate") else 1
    left = () if kind == "delete" else (there[kind](),)
    return found, Edit(kind=kind, place=place, records=left, taken=taken)


def declarations(draw: st.DrawFn, *, all_: bool) -> dict[str, Any]:
    if all_:
        return {name: draw(tables.DECLARED) for name in NAMES}
    return draw(st.dictionaries(st.sampled_from(NAMES), tables.DECLARED))


@st.composite
def csv_pairs(draw: st.DrawFn, folder: Path) -> tuple[Read, Drawn]:
    multiline = draw(st.booleans())
    lines_ = tables.MULTILINE if multiline else tables.CSV_LINES
    guarantee = {"columns": declarations(draw, all_=False), "multiline_cells": multiline}
    return reader(folder, ".csv", guarantee), edited(draw, lines_, [b",,", b"", b" ,\t, ", b"\r"])


@st.composite
def json_pairs(draw: st.DrawFn, folder: Path) -> tuple[Read, Drawn]:
    columns = {name: {} for name in NAMES} | declarations(draw, all_=False)
    read = reader(folder, ".jsonl", {"columns": columns})
    return read, edited(draw, tables.JSON_LINES, [b"{}", b"null", b"", b" \r"])


@st.composite
def parquet_pairs(draw: st.DrawFn, folder: Path) -> tuple[Read, Drawn]:
    kinds = [draw(st.sampled_from(list(tables.PARQUET))) for _ in NAMES]
    schema = pa.schema(list(zip(NAMES, kinds, strict=True)))
    rows = st.tuples(*(st.none() | tables.PARQUET[kind] for kind in kinds))
    return reader(folder, ".parquet", {}, schema), edited(draw, rows, [(None,) * len(NAMES)])


@st.composite
def frame_pairs(draw: st.DrawFn, folder: Path) -> tuple[Read, Drawn]:
    cells = [draw(st.sampled_from(tables.FRAME_CELLS)) for _ in NAMES]
    plain = st.tuples(*cells)
    odd = st.tuples(*(st.sampled_from(tables.ODD_CELLS) | cell for cell in cells))
    read = reader(folder, "frame", {"columns": declarations(draw, all_=True)})
    return read, edited(draw, plain, [(None,) * len(NAMES)], odd)


@pytest.mark.parametrize("pairs", [csv_pairs, json_pairs, parquet_pairs, frame_pairs])
def test_no_record_changes_what_another_one_says(
    pairs: Callable[[Path], st.SearchStrategy[tuple[Read, Drawn]]], *, long: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:

        @settings(
            max_examples=(LONG_PAIRS if long else PAIRS),
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=not long,
        )
        @given(pairs(Path(folder)))
        def check(pair: tuple[Read, Drawn]) -> None:
            read, (records, edit) = pair
            before, after = read(records), read(edit.of(records))
            assert moved(before, after, edit) == []
            if edit.kind == "null out":
                assert after.null[edit.place]

        check()


def as_json_lines(cells: Sequence[str], key: str) -> list[bytes]:
    return [f'{{"{key}": {cell}, "note": "x"}}'.encode() for cell in cells]


ALONE: dict[str, tuple[str, dict[str, Any], list[bytes], bytes]] = {
    "a number without a value": (".csv", {}, [b"18,x,", b"63,x,"], b",y,"),
    "a number that says unknown": (".csv", {}, [b"18,x,", b"63,x,"], b"unknown,y,"),
    "a ZIP code with letters": (".csv", {}, [b"00501,x,", b"10115,x,"], b"A7777,y,"),
    "a boolean that says maybe": (".csv", {}, [b"true,x,", b"false,x,"], b"maybe,y,"),
    "a whole number that is none": (".csv", {}, [b"18,x,", b"63,x,"], b"33.5,y,"),
    "a fraction that is large": (".csv", {}, [b"4.5,x,", b"15.75,x,"], b"123456789012345678,y,"),
    "a stray quote": (".csv", {}, [b"18,x,", b"63,x,", b'7,"y",'], b'19,x",'),
    "a quote that stays open": (".csv", {}, [b"18,x,", b'63,"x",'], b'19,"x,'),
    "a field too many": (".csv", {}, [b"18,x,", b"63,x,"], b"19,x,,,"),
    "a lone carriage return": (".csv", {}, [b"18,x,", b"63,x,"], b"19,x\r7,y,"),
    "a NUL": (".csv", {}, [b"18,x,", b"63,x,"], b"19,\0,"),
    "bytes that are no text": (".csv", {}, [b"18,x,", b"63,x,"], b"19,\xff,"),
    "texts of digits": (".jsonl", {}, as_json_lines(['"00501"', '"10115"'], "age"), b'{"age": "A1"}'),
    "dates by a column's name": (
        ".jsonl",
        {"created_at": {}},
        as_json_lines(['"2024-01-01"', '"2024-01-02"'], "created_at"),
        b'{"created_at": "unknown"}',
    ),
    "a new key": (".jsonl", {}, as_json_lines(["18", "63"], "age"), b'{"age": 1, "new": 2}'),
    "another nesting": (".jsonl", {}, as_json_lines(["[1]", "[2]"], "age"), b'{"age": [null]}'),
    "a record before a byte order mark": (
        ".jsonl",
        {},
        [b"\xef\xbb\xbf" + line for line in as_json_lines(["18", "63"], "age")],
        b'{"age": 1}',
    ),
    "a line that is no JSON": (".jsonl", {}, as_json_lines(["18", "63"], "age"), b'{"age": '),
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("place", [0, 1])
def test_an_odd_record_stays_alone(name: str, place: int, tmp_path: Path) -> None:
    assert odd_record_moves(name, place, tmp_path) == []


def odd_record_moves(name: str, place: int, folder: Path) -> list[tuple[Any, Any]]:
    suffix, more, records, odd = ALONE[name]
    columns = {"columns": {**{name: {} for name in NAMES}, **more}} if suffix == ".jsonl" else {}
    read = reader(folder, suffix, columns)
    edit = Edit(kind="insert", place=place, records=(odd,), taken=0)
    return moved(read(records), read(edit.of(records)), edit)


def test_a_type_from_all_rows_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule_of = conversion.rule_of

    def common_type(name: str, read: AsRead, *given: Any) -> Rule:
        declared = PublicColumn(nullable=False)
        rules = [
            Rule.of(type_, declared, cell_chars=None) for type_ in (ColumnType.INTEGER, ColumnType.STRING)
        ]
        fitting = (rule for rule in rules if VOID not in map(rule.json_of, read.columns[name].cells))
        return next(fitting, rule_of(name, read, *given))

    monkeypatch.setattr(conversion, "rule_of", common_type)
    assert odd_record_moves("a ZIP code with letters", 0, tmp_path)
    assert odd_record_moves("a number that says unknown", 1, tmp_path)


def test_a_quote_that_runs_over_lines_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_lines, "lines", csv_lines.quoted_lines)
    assert odd_record_moves("a quote that stays open", 0, tmp_path)
    assert odd_record_moves("a stray quote", 1, tmp_path)


def test_a_union_of_columns_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_cells = reading.read_cells

    def with_all_keys(
        path: Path, guarantee: GuaranteeParameters, limits: TableLimits | None = None
    ) -> AsRead:
        found = {key: PublicColumn() for line in lines.lines(path) for key in keys(line, 32)}
        columns = {**found, **guarantee.columns}
        return read_cells(path, guarantee.model_copy(update={"columns": columns}), limits)

    monkeypatch.setattr(reading, "read_cells", with_all_keys)
    assert odd_record_moves("a new key", 0, tmp_path)


def test_a_cell_that_stands_for_an_equal_one_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a Python dictionary 1 and True are one key: whichever comes first would stand for both."""
    read = reader(tmp_path, "frame", {"columns": {name: {"type": "any"} for name in NAMES}})
    records, edit = [(1, "x", None)], Edit(kind="insert", place=0, records=((True, "y", [1]),), taken=0)
    assert moved(read(records), read(edit.of(records)), edit) == []
    cells: dict[Any, bytes] = {}
    as_cell = frame_cells.as_cell
    monkeypatch.setattr(frame_cells, "as_cell", lambda cell: cells.setdefault(str(cell == 1), as_cell(cell)))
    cells.clear()
    before = read(records)
    cells.clear()
    assert moved(before, read(edit.of(records)), edit)
