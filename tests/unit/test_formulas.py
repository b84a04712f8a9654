"""No cell that a spreadsheet would run as a formula leaves without its apostrophe."""

from __future__ import annotations

import pytest

from nss_train.text.formulas import defused


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠A", "-", "+1 "],
)
def test_a_text_that_begins_as_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert defused(cell) == (f"'{cell}" if cell != "+1 " else cell)


@pytest.mark.parametrize("cell", ["-1", "+2.5", "-1e5", "a=1", "", "'=1", 5, -5, None, 2.5, True])
def test_numbers_and_harmless_cells_stay_as_they_are(cell: object) -> None:
    assert defused(cell) is cell


@pytest.mark.parametrize("cell", ["\t5", "\n5", "\r5"])
def test_a_number_behind_a_control_character_is_not_taken_for_a_number(cell: str) -> None:
    assert defused(cell) == f"'{cell}"
