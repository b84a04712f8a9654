"""A message that is refused leaves the reason where its sender looks, and no secret of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nss_train.errors import ParameterError
from tasks.app import App
from tasks.jobs.ids import id_of_key
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import SubmitMessage
from tasks.store.local import LocalStore
from tasks.submission.refusals import leave_refusal, refuse_message

TASK_ID = "task-0001"


def wrong(**fields: object) -> tuple[dict[str, object], ValidationError]:
    message = {"table": "x.csv", **fields}
    with pytest.raises(ValidationError) as caught:
        SubmitMessage.model_validate(message)
    return message, caught.value


def test_the_value_of_a_wrong_field_is_told_only_if_it_can_hold_no_secret(app: App) -> None:
    message, error = wrong(seed="hunter1", idempotency_key=["hunter2"], config="hunter3")
    refusal = refuse_message(app, message, task_id=TASK_ID, error=error)
    told = {problem.field.split(".")[0]: problem.value for problem in refusal.problems}
    assert told["seed"] == "hunter1"
    assert "hunter2" not in str(refusal)
    assert "hunter3" not in str(refusal)


def test_the_reason_is_found_under_the_task_or_under_the_sender_s_key(app: App, store: LocalStore) -> None:
    for key, job_id in {"": TASK_ID, "order-7": id_of_key("order-7")}.items():
        message, error = wrong(seed="x", idempotency_key=key)
        refuse_message(app, message, task_id=TASK_ID, error=error)
        outcome = JobRepository(store, job_id).outcome()
        assert outcome is not None
        assert "seed" in str(outcome.error)


def test_a_job_that_exists_is_not_ended_by_a_refusal(app: App, store: LocalStore) -> None:
    records = JobRepository(store, TASK_ID)
    leave_refusal(records, table="first.csv", error=ParameterError("The first reason."))
    leave_refusal(records, table="x" * 10_000, error=ParameterError("The second reason."))
    assert "The first reason" in str(records.outcome())
