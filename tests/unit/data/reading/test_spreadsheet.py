"""A workbook is read if one sheet holds cells, with a header that fits them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from nss_train.config.sections.reading import ColumnReading, ReadingParameters, Types
from nss_train.contract import TableLimits
from nss_train.data.reading.spreadsheet import sheet_cells, xlsx_size
from nss_train.data.source import read_source, read_table
from nss_train.errors import DataError

from .files import Refused, check_refused, write_xlsx


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


REFUSED: dict[str, Refused] = {
    "no workbook": ("t.xlsx", b"PK\x03\x04" + b"x" * 50, r"not an XLSX workbook"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_no_workbook_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


def test_whole_numbers_of_a_workbook_are_integers_as_far_as_each_has_a_double_of_its_own(
    tmp_path: Path,
) -> None:
    cells: list[object] = [1.0, 2.5, 2**53, 2**53 + 2, None]
    write_xlsx(tmp_path / "t.xlsx", [["a", "b"], *([cell, "x"] for cell in cells)])
    found = sheet_cells(tmp_path / "t.xlsx")["a"]
    assert found == [1, 2.5, 2**53, 2**53 + 2, None]
    assert [type(cell) for cell in found[:4]] == [int, float, int, float]


@pytest.mark.parametrize("types", [Types.NSS, Types.FAITHFUL])
def test_an_empty_cell_of_a_single_column_is_a_row(types: Types, tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [["a"], ["x"], [None], ["y"]])
    source = read_source(tmp_path / "t.xlsx", reading=ReadingParameters(types=types))
    assert source.frame["a"].isna().tolist() == [False, True, False]
    assert source.changes == ()


def test_a_workbook_whose_parts_are_too_large_is_not_opened(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [["a"], ["x" * 2**20], ["y"]])
    strict = TableLimits(expansion=20, small_bytes=2**12)
    assert xlsx_size(tmp_path / "t.xlsx", strict).rows == 0
    assert xlsx_size(tmp_path / "t.xlsx", TableLimits()).rows == 3


def with_part(path: Path, old: str, new: str) -> None:
    """Replace a text in the first sheet of a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    parts["xl/worksheets/1.xml"] = parts["xl/worksheets/1.xml"].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


@pytest.mark.parametrize("types", [Types.NSS, Types.FAITHFUL])
def test_cells_with_an_error_are_told_by_column(types: Types, tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [["a", "b"], [1, 11], [2, 22], [3, 4]])
    for number, cell in ((11, "B2"), (22, "B3")):
        error = f'<c r="{cell}" t="e"><v>#N/A</v></c>'
        with_part(tmp_path / "t.xlsx", f"<c><v>{number}</v></c>", error)
    reading = ReadingParameters(types=types)
    assert read_source(tmp_path / "t.xlsx", reading=reading).frame["b"].isna().tolist() == [True, True, False]
    (doubt,) = read_source(tmp_path / "t.xlsx", reading=reading).doubts
    assert doubt.startswith("b: 2 cells with an error of the workbook")
    dropping = ReadingParameters(types=types, columns={"b": ColumnReading.DROP})
    assert read_source(tmp_path / "t.xlsx", reading=dropping).doubts == ()


def test_merged_cells_are_refused_by_their_place(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [["a", "b"], [1, "x"], [2, None]])
    merged = '</sheetData><mergeCells count="1"><mergeCell ref="B2:B3"/></mergeCells>'
    with_part(tmp_path / "t.xlsx", "</sheetData>", merged)
    with pytest.raises(DataError, match=r"cells = 'B2:B3': merged"):
        read_table(tmp_path / "t.xlsx")
