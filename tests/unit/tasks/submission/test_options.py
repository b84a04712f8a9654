"""The options of a submission are checked together with its table and its config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nss_train.errors import ParameterError
from tasks.jobs.submission import PRIORITY_RANGE, Submission
from tasks.submission.options import problems_of_options
from tasks.submission.submit import check_request


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    return path


HALF = "a\udcff"
"""A text as Python reads it from a command line whose last byte is not UTF-8."""


@pytest.mark.parametrize("field", ["idempotency_key", "family", "tenant", "webhook", "table"])
def test_a_text_with_half_a_character_is_refused_with_the_rest(field: str, table: Path) -> None:
    odd = shutil.copy(table, table.with_name(f"{HALF}.csv"))
    given: dict[str, Any] = {"table": table, "seed": -1} | {field: str(odd)}
    with pytest.raises(ParameterError) as caught:
        check_request(Submission.unchecked(**given))
    assert [problem.field for problem in caught.value.problems if problem.field != "seed"] == [field]
    assert "seed = -1" in str(caught.value)


def test_a_folder_that_is_not_named_in_utf_8_may_hold_a_table(table: Path) -> None:
    folder = table.parent / HALF
    folder.mkdir()
    check_request(Submission(table=shutil.copy(table, folder)))


def test_a_token_with_half_a_character_is_refused_and_not_shown(table: Path) -> None:
    with pytest.raises(ParameterError, match="dataset_token = None: use it as it was printed") as caught:
        check_request(Submission.unchecked(table=table, dataset_token=f"sesame{HALF}"))
    assert "sesame" not in str(caught.value)


def test_a_bad_seed_is_not_called_a_place_in_line(table: Path) -> None:
    with pytest.raises(ParameterError, match="The job's options are refused"):
        check_request(Submission(table=table, seed=-1))


def test_the_first_and_the_last_priority_are_allowed_and_no_other(table: Path) -> None:
    for priority in PRIORITY_RANGE:
        check_request(Submission(table=table, priority=priority))
    for beyond in (PRIORITY_RANGE[0] - 1, PRIORITY_RANGE[-1] + 1):
        with pytest.raises(ParameterError, match="use 0 \\(first\\) to 9 \\(last\\)"):
            check_request(Submission(table=table, priority=beyond))


def test_usual_options_have_no_problem(table: Path) -> None:
    usual = Submission(table=table, idempotency_key="größer", family="Qwen", tenant="a", seed=0)
    assert list(problems_of_options(usual)) == []
