"""The refusal of a submission by message: its sender waits for no answer, so the outcome holds the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pydantic import ValidationError

from nss_train.config import parse_config
from nss_train.errors import NSSTrainError, ParameterError, Problem
from tasks.deployment import Deployment
from tasks.jobs.documents import JobRequest, Outcome, Table
from tasks.jobs.ids import check_job_id, id_of_key
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import Webhook
from tasks.jobs.versioning import NewerVersion
from tasks.webhooks.url_policy import check_url

MAX_NAME_CHARS = 200
_HARMLESS = {"version", "family", "ranks", "fsdp", "seed", "priority", "tenant"}
"""Fields of a message whose values are shown; a config, a key or a URL may hold a secret."""


def refuse_message(
    app: Deployment, message: Mapping[str, object], *, task_id: str, error: ValidationError | NewerVersion
) -> ParameterError:
    """Record what is wrong with a message's own fields under the id that its sender knows.

    The refusal is returned, for the caller to raise.
    """
    key = message.get("idempotency_key")
    job_id = check_job_id(id_of_key(key) if isinstance(key, str) and key else task_id)
    refusal = ParameterError("The message is refused.", list(_wrong_fields(message, error)))
    record_refusal(app, job_id, table=str(message.get("table", "")), webhook=None, error=refusal)
    return refusal


def _wrong_fields(message: Mapping[str, object], error: ValidationError | NewerVersion) -> Iterator[Problem]:
    if isinstance(error, NewerVersion):
        remedy = "newer than this deployment; upgrade its workers first"
        yield Problem(field="version", value=message.get("version"), remedy=remedy)
    else:
        # The message guard bounds their number.
        for one in error.errors(include_url=False, include_context=False):
            where = ".".join(map(str, one["loc"]))
            value = one["input"] if where in _HARMLESS else None
            yield Problem(field=where, value=value, remedy=one["msg"])


def record_refusal(
    app: Deployment, job_id: str, *, table: str, webhook: Webhook | None, error: NSSTrainError
) -> None:
    """Record a refused message's reason where its sender looks: under the job's id."""
    allowed = webhook if _may_be_called(webhook, app) else None
    leave_refusal(JobRepository(app.store, job_id), table=table, webhook=allowed, error=error)


def leave_refusal(
    records: JobRepository, *, table: str, error: NSSTrainError, webhook: Webhook | None = None
) -> None:
    """Record a refusal where nothing but the store is at hand. A job that exists stays as it is."""
    if records.is_submitted():
        return
    empty = JobRequest(
        job_id=records.job_id,
        table=Table(name=table[:MAX_NAME_CHARS]),
        config=parse_config({}),
        seed=0,
        submitted_at=datetime.now(UTC),
        webhook=webhook,
    )
    if records.submitted(empty):
        records.finish(Outcome.FAILED, error=error)


def _may_be_called(webhook: Webhook | None, app: Deployment) -> bool:
    try:
        return webhook is not None and bool(check_url(webhook.url, app.settings))
    except ParameterError:
        return False
