"""A submission that nobody has sent yet: its options and its checks."""

from __future__ import annotations

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
