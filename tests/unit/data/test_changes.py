"""No cell changes without a warning, and no column loses values unless that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nss_train.config.sections.reading import ColumnReading, ReadingParameters, Types
from nss_train.data.comparison import pairs
from nss_train.data.comparison.changes import Change, What, check_dates
from nss_train.data.comparison.pairs import Sketch, hashes
from nss_train.data.reading import cells
from nss_train.data.source import read_source
from nss_train.data.tokenization.distinct_values import distinct_columns, to_arrow
from nss_train.errors import DataError
from tests.unit.data.reading.files import write_xlsx

AS_NSS = ReadingParameters(types=Types.NSS)
Write = Callable[..., Path]
BIG = 2**60 + 1


@pytest.fixture
def csv(tmp_path: Path) -> Write:
    """Write one column beside another that nothing happens to."""

    def write(*cells: Any, name: str = "c") -> Path:
        path = tmp_path / "t.csv"
        path.write_text("".join(f"{row},x\n" for row in (name, *cells)).replace(",x", ",other", 1))
        return path

    return write


@pytest.fixture
def json_lines(tmp_path: Path) -> Write:
    def write(*cells: Any, name: str = "c") -> Path:
        path = tmp_path / "t.jsonl"
        path.write_text("".join(json.dumps({name: cell, "other": "x"}) + "\n" for cell in cells))
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Write:
    def write(*cells: Any, kind: pa.DataType) -> Path:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"c": pa.array(cells, kind), "other": ["x"] * len(cells)}), path)
        return path

    return write


def changes(path: Path, reading: ReadingParameters = AS_NSS) -> list[Change]:
    return list(read_source(path, reading=reading).changes)


def counts(path: Path) -> dict[What, int]:
    """Return what happened to the one column that something happened to."""
    (found,) = changes(path)
    assert found.column == "c"
    return dict(found.cells)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["07094", "10001", "00501"], {What.ZEROS: 2}),
        (["+4930", "+4931", "12"], {What.SIGNS: 2}),
        ([" 01", " 02", "3"], {What.ZEROS: 2, What.SPACES: 2}),
        (["3 ", "4", " 5"], {What.SPACES: 2}),
        (["3E5", "4E1", ""], {What.POWERS: 2}),
        (["1.50", "2.25", "3.00"], {What.ENDS: 2}),
        (["NA", "x", "n/a", ""], {What.NULLED: 2}),
        (["NA", "1.5", "NULL", ""], {What.NULLED: 2}),
        ([3, "", 5], {What.WHOLE: 2}),
        ([3, 4.5, 5], {What.WHOLE: 2}),
        ([BIG, "", 5], {What.ROUNDED: 1, What.WHOLE: 2}),
        (["0.12345678901234", "1.5"], {What.ROUNDED: 1}),
        (["inf", "1.5", "-Infinity"], {What.INFINITE: 2}),
        (["7.5e2", "1.5", "1e3"], {}),
        (["True", "", "False"], {}),
        (["Null", "Lee", ""], {}),
        ([1, 2, 3], {}),
        ([1.5, "", -0.25], {}),
    ],
)
def test_what_happens_to_cells_of_a_csv_file_is_counted(
    csv: Write, cells: list[Any], expected: dict[What, int]
) -> None:
    path = csv(*cells)
    assert (counts(path) if expected else {one.column: one.cells for one in changes(path)}) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["94110", "02116"], {What.QUOTED: 2, What.ZEROS: 1}),
        (["0.740", "0.25"], {What.QUOTED: 2, What.ENDS: 1}),
        ([True, None, False], {What.FLAGS: 2}),
        ([3, None, 5], {What.WHOLE: 2}),
        (["a", None, "NA"], {}),
        ([1.5, None], {}),
        ([1.0, 2.0], {}),
    ],
)
def test_what_happens_to_values_of_json_lines_is_counted(
    json_lines: Write, cells: list[Any], expected: dict[What, int]
) -> None:
    path = json_lines(*cells)
    assert (counts(path) if expected else {one.column: one.cells for one in changes(path)}) == expected


def test_what_happens_to_values_of_parquet_is_counted(parquet: Write) -> None:
    assert counts(parquet(2**53 + 1, None, 7, kind=pa.int64())) == {What.ROUNDED: 1, What.WHOLE: 2}
    cents = [Decimal("17241134.63"), Decimal("1.25")]
    assert counts(parquet(*cents, kind=pa.decimal128(20, 2))) == {What.NOISE: 1}
    assert changes(parquet("NA", "007", None, kind=pa.string())) == []


@pytest.mark.parametrize(
    ("cells", "lost"),
    [
        (["7", "007", "8"], "3 distinct values become 2"),
        ([BIG, "", BIG + 1], "2 distinct values become 1"),
        (["1.5e-13", "2.5e-13", "0.5"], "3 distinct values become 2"),
        (["1E1", "10E0", "2E5"], "3 distinct values become 2; codes such as 3E5"),
        ([2**53, "", 2**53 + 1], "2 distinct values become 1"),
    ],
)
def test_a_column_that_loses_distinct_values_is_refused_with_the_remedy(
    csv: Write, cells: list[Any], lost: str
) -> None:
    path = csv(*cells)
    with pytest.raises(DataError) as refused:
        read_source(path)
    (problem,) = refused.value.problems
    assert problem.field == "c"
    assert lost in problem.value
    assert "reading.types: faithful" in problem.remedy
    assert "reading.columns: {c: text}" in problem.remedy
    assert "reading.types: nss" in problem.remedy


def test_a_few_of_very_many_measures_may_meet_in_rounding(csv: Write) -> None:
    measures = [f"0.{number:04}" for number in range(1, 5000)]
    (change,) = changes(csv(*measures, "0.40000000001"), ReadingParameters())
    assert change.cells[What.ROUNDED] == 1
    assert not change.loses_values


def test_a_loss_is_accepted_when_it_is_asked_for_and_told(csv: Write) -> None:
    (change,) = changes(csv("7", "007", "8"))
    assert str(change).startswith("c: 3 distinct values become 2; leading zeros lost in 1 cell.")


def test_a_column_that_is_read_as_text_loses_nothing(csv: Write) -> None:
    path = csv("7", "007", "8")
    assert changes(path, ReadingParameters(columns={"c": ColumnReading.TEXT})) == []
    assert changes(path, ReadingParameters(types=Types.FAITHFUL)) == []


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "1.0", "2.5"],
        ["1.50", "1.5", "2"],
        ["0.30000000000000004", "0.3", "1"],
        ["+1", "1", "2"],
        ["NA", "n/a", "N/A", "x"],
        ["1e3", "1000", "1000.0", "0.5"],
        ["-0", "0", "1"],
        ["-0.0", "0.0", "2.5"],
    ],
)
def test_two_spellings_of_one_value_are_no_loss(csv: Write, cells: list[str]) -> None:
    assert not any(change.loses_values for change in changes(csv(*cells), ReadingParameters()))


def test_values_are_compared_across_batches(csv: Write) -> None:
    plain = [str(number) for number in range(1, 70_000)]
    with pytest.raises(DataError, match="70,000 distinct values become 69,999"):
        read_source(csv(*plain, "0042"))


def test_words_that_become_null_are_named_the_most_frequent_first(csv: Write) -> None:
    (change,) = changes(csv("n/a", "NA", "NA", "x"))
    assert change.what == "3 cells read as missing (null): NA, n/a"


def test_what_the_quick_reader_refuses_is_compared_all_the_same(csv: Write, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('c,other\n07,x\n  \n08,x\n\n09,"a\nb"\n')
    assert counts(path) == {What.ZEROS: 3}


def test_a_json_column_of_numbers_and_booleans_is_refused_with_its_name(json_lines: Write) -> None:
    path = json_lines(True, 1, 0)
    with pytest.raises(DataError, match=r"c = 'values of different types become values of one"):
        read_source(path)
    assert [change.column for change in changes(path)] == ["c"]


def test_types_that_differ_between_blocks_of_json_lines_are_found(
    json_lines: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_BLOCK_BYTES", 10)
    with pytest.raises(DataError, match=r"c = 'values of different types .*from number to string"):
        read_source(json_lines(1, 2, "3", 4))
    assert changes(json_lines(*["2024-01-01", "x", "NA", "007"] * 3)) == []
    assert counts(json_lines(BIG, 5, None)) == {What.ROUNDED: 1, What.WHOLE: 2}


@pytest.mark.parametrize(
    ("kind", "found", "changed"),
    [
        (pa.list_(pa.float64()), [[1e-13], [0.5]], 1),
        (pa.list_(pa.int64()), [[BIG, 1], [None, 7]], 2),
        (pa.struct({"n": pa.int64()}), [{"n": 1}, None, {"n": 2}], 2),
        (pa.struct({"n": pa.int64()}), [{"n": 1}, {"n": 2}], 0),
        (pa.struct({"day": pa.date32()}), [{"day": date(2024, 1, 1)}, None], 1),
        (
            pa.struct({"cents": pa.decimal128(20, 2), "path": pa.string()}),
            [{"cents": None, "path": "a/b"}] * 2,
            0,
        ),
    ],
)
def test_what_changes_within_lists_and_objects_is_counted(
    parquet: Write, kind: pa.DataType, found: list[Any], changed: int
) -> None:
    path = parquet(*found, kind=kind)
    assert {one.column: one.cells for one in changes(path)} == (
        {"c": {What.NESTED: changed}} if changed else {}
    )


def test_lists_that_become_one_are_refused(parquet: Write) -> None:
    with pytest.raises(DataError, match=r"c = '2 distinct values become 1"):
        read_source(parquet([1e-13], [2e-13], kind=pa.list_(pa.float64())))


def test_what_happens_to_cells_of_a_workbook_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    write_xlsx(
        path, [["zip", "n", "word", "x"], ["007", 1, "NA", 0.5], ["010", 2, "a", None], ["012", None, "", 2]]
    )
    assert {one.column: dict(one.cells) for one in changes(path)} == {
        "zip": {What.QUOTED: 3, What.ZEROS: 3},
        "n": {What.WHOLE: 2},
        "word": {What.NULLED: 1},
    }


def test_dates_are_refused_where_no_row_could_be_valid_and_times_of_day_are_not(parquet: Write) -> None:
    def written(path: Path) -> Any:
        return distinct_columns(to_arrow(read_source(path, reading=AS_NSS).frame))

    times = written(parquet(time(6, 30), time(7), kind=pa.time64("us")))
    assert check_dates(times, ReadingParameters()) == []
    days = written(parquet(date(2024, 1, 1), date(2024, 1, 2), kind=pa.date32()))
    with pytest.raises(DataError, match=r"c = .*no generated row.*reading.columns: {c: text}"):
        check_dates(days, ReadingParameters())
    (warning,) = check_dates(days, AS_NSS)
    assert warning.startswith("c: dates are trained as numbers")


def test_counts_of_distinct_values_are_bounded_in_memory_and_see_losses_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pairs, "EXACT", 1000)
    found = Sketch()
    for start in range(0, 40_000, 500):
        cells = np.arange(start, start + 500, dtype=np.float64)
        found.add(hashes(cells), hashes(cells // 2))
    distinct, trained = found.distinct()
    assert len(found._pairs) <= 1000
    assert distinct == pytest.approx(40_000, rel=0.2)
    assert trained == pytest.approx(20_000, rel=0.2)


def test_nothing_is_said_of_a_table_that_is_trained_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame = pd.DataFrame({"n": range(50), "x": np.linspace(0, 1, 50).round(3), "t": ["a", "b"] * 25})
    frame.to_csv(path, index=False)
    assert changes(path, ReadingParameters()) == []
