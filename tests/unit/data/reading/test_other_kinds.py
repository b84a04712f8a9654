"""Files of other kinds that are named like text tables are refused as what they are, and no other file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.data.source import read_table

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "drawn by MySQL": ("t.csv", b"+----+\n| id |\n+----+\n|  1 |\n|  2 |\n+----+\n", "drawn lines"),
    "drawn by psql": ("t.txt", b" id | v \n----+---\n 1 | 2 \n 3 | 4 \n(2 rows)\n", "drawn lines"),
    "drawn in Markdown": ("t.txt", b"| id | v |\n|:---|---:|\n| 1 | 2 |\n| 3 | 4 |\n", "drawn lines"),
    "PDF": ("t.csv", b"%PDF-1.4\n1 0 obj\n<<>>\n", "begins as PDF"),
    "a pointer of Git LFS": (
        "t.csv",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n",
        "git lfs pull",
    ),
    "statements": ("t.txt", b"INSERT INTO t VALUES (1, 'a');\n" * 3, "begins as SQL"),
    "a spreadsheet in HTML": ("t.csv", b"<table><tr><td>1</td></tr>\n<tr><td>2</td></tr></table>", "HTML"),
    "JSON Lines of one name": ("t.csv", b'{"a":1}\n{"a":2}\n', "begins as JSON Lines"),
    "Excel's line and tabs": ("t.csv", b"sep=\t\na\tb\n1\t2\n3\t4\n", "is Excel's and no header"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_of_another_kind_is_refused_as_what_it_is(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


@pytest.mark.timeout(20)
def test_a_long_line_that_is_almost_drawn_is_a_cell(tmp_path: Path) -> None:
    table, cell = tmp_path / "t.csv", "-" * 2**15 + "x"
    table.write_text(f"a,b\n{cell},1\ny,2\n")
    assert read_table(table)["a"][0] == cell
