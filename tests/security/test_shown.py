"""Content of a table does not run where a person looks at it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from tasks.cli import display
from tasks.cli.csv_export import write_rows

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+cmd|'/C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    '=HYPERLINK("http://x")',
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_as_text(text: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", [{text: text}])
    (header,), (cell,) = csv.reader(io.StringIO((tmp_path / "rows.csv").read_bytes().decode(), newline=""))
    assert (header, cell) == (f"'{text}", f"'{text}")


def test_other_cells_stay_what_they_are(tmp_path: Path) -> None:
    row = {"a": -1.5, "b": "-1.5", "c": "+3e4", "d": "a=b", "e": None, "f": True, "g": 'x,"y"\nz'}
    write_rows(tmp_path / "rows.csv", [row])
    _, cells = csv.reader(io.StringIO((tmp_path / "rows.csv").read_bytes().decode(), newline=""))
    assert cells == ["-1.5", "-1.5", "+3e4", "a=b", "", "True", 'x,"y"\nz']


STEERING = ["\x1b[2J\x1b]0;title\x07", "[red]x[/red]", "[link=http://x]y[/link]", "\x9b2J", "[/]"]


@pytest.mark.parametrize("text", STEERING)
def test_a_cell_steers_no_terminal(text: str) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=200)
    shown.print(display.row_table([{text: text}]))
    printed = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in printed
    assert "\x1b]" not in printed
    assert "\x9b" not in printed
    assert text.encode("unicode_escape").decode() in printed.replace("\x1b[1m", "").replace("\x1b[0m", "")
