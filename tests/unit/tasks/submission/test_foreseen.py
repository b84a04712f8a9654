"""What can be known of a job's warnings when it is submitted, and that it is told then."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nss_train.config import parse_config
from nss_train.config.sections.reading import ReadingParameters, Types
from nss_train.data.source import read_source
from nss_train.errors import DataError
from tasks.submission.foreseen import foreseen

CELLS = ["0123", "007", "12", "3", "+4", "-05", "1.5", "1e3", "NA", "None", "", "x", " 7", "08.5", "0"]


def write(folder: Path, *cells: str) -> Path:
    path = folder / "t.csv"
    path.write_text("c,other\n" + "".join(f"{cell},x\n" for cell in cells))
    return path


@hypothesis_settings(max_examples=30)
@given(st.lists(st.sampled_from(CELLS), min_size=2, max_size=6))
def test_what_a_glance_foresees_is_what_the_comparison_finds(cells: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), *cells)
        found = {}
        try:
            changes = read_source(path, reading=ReadingParameters(types=Types.NSS)).changes
            found = {change.column: change.what for change in changes}
        except DataError:
            return
        for warning in foreseen(path, parse_config({}), {}):
            column, _, said = warning.partition(": ")
            told, _, _ = said.partition(", among the first")
            assert set(told.split("; ")) <= set(found[column].split("; "))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["0123", "45"], "c: leading zeros lost in 1 cell, among the first 2 rows"),
        (["3", ""], "c: whole numbers trained as floats (3 as 3.0) in 1 cell"),
        (["x", "NA"], "c: 1 cell read as missing (null): NA"),
    ],
)
def test_a_glance_tells_column_change_and_remedy(cells: list[str], said: str, tmp_path: Path) -> None:
    (warning,) = foreseen(write(tmp_path, *cells), parse_config({}), {})
    assert warning.startswith(said)
    assert "reading.columns: {c: text}" in warning


@pytest.mark.parametrize(
    "config",
    [
        {"reading": {"types": "faithful"}},
        {"reading": {"columns": {"c": "text"}}},
        {"reading": {"delimiter": ";"}},
        {"privacy": {"dp_enabled": True}},
    ],
)
def test_a_glance_says_nothing_of_what_is_read_otherwise(config: dict[str, object], tmp_path: Path) -> None:
    assert not list(foreseen(write(tmp_path, "0123", "45"), parse_config(config), config))


@pytest.mark.parametrize(
    "text", ["c,other\n0123,x,y\n", "c;other\n0123;x\n", "c,other\n0123,\xff\n", "c\n012\n"]
)
def test_a_glance_leaves_what_is_in_doubt_to_prepare_data(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    assert not list(foreseen(path, parse_config({}), {}))


@pytest.mark.timeout(20)
def test_a_glance_at_a_long_cell_that_is_almost_a_number_takes_one_pass(tmp_path: Path) -> None:
    path = write(tmp_path, "7" * 2**15 + "x", "8")
    assert list(foreseen(path, parse_config({}), {})) == []


def test_settings_without_effect_and_too_few_steps_are_foreseen() -> None:
    sections = {"replace_pii": {"steps": []}, "training": {"num_input_records_to_sample": 16}}
    pii, short = foreseen(None, parse_config(sections), sections)
    assert pii.startswith("replace_pii has no effect")
    assert short.startswith("at most 2 optimizer steps: fewer than 16 teach next to nothing")
    private = {"privacy": {"dp_enabled": True}, "data": {"random_state": 7}}
    (state,) = foreseen(None, parse_config(private), private)
    assert state.startswith("data.random_state has no effect under privacy")
