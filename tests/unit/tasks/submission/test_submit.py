"""A submission that nobody has sent yet: its options and its checks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import SafeSynthesizerParameters
from nss_train.errors import ParameterError
from tasks.cli.commands import jobs
from tasks.client import Client
from tasks.jobs.documents import JobRequest
from tasks.jobs.submission import (
    PRIORITY_RANGE,
    JobOptions,
    Submission,
    SubmissionOptions,
    SubmitMessage,
)
from tasks.submission.submit import check_request


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    return path


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"idempotency_key": ""}, "idempotency_key = ''"),
        ({"ranks": -2}, "ranks = -2"),
    ],
)
def test_what_would_fail_late_is_refused_at_once(given: Mapping[str, Any], says: str, table: Path) -> None:
    with pytest.raises(ParameterError, match=says):
        check_request(Submission(table=table, **given))


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


def test_a_config_that_is_an_object_is_looked_at_like_its_text(table: Path) -> None:
    given = {"training": {"lr_scheduler": "cosin"}}
    for config in (given, SafeSynthesizerParameters.model_validate(given)):
        with pytest.raises(ParameterError, match="cosin"):
            check_request(Submission(table=table, config=config))


def test_each_option_is_known_to_client_command_and_message() -> None:
    options = set(SubmissionOptions.model_fields)
    assert options <= set(signature(Client.submit).parameters)
    assert options <= set(signature(jobs.submit).parameters)
    assert options <= set(SubmitMessage.model_fields)
    assert set(JobOptions.model_fields) <= set(JobRequest.model_fields)


def test_a_submission_that_is_shown_hides_its_token() -> None:
    assert "sesame" not in repr(Submission(table="t.csv", dataset_token="sesame"))
