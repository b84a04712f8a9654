"""A submission: check it, put it into the store, enqueue its stages."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from nss_train.config import SafeSynthesizerParameters, parse_config, read_config
from nss_train.config.support import unsupported_training
from nss_train.contract import ModelPolicy, TableLimits
from nss_train.errors import BrokerUnavailable, DataError, ParameterError, Problem, UserError
from nss_train.model_names import missing_models
from nss_train.text.names import draw_name
from tasks.broker.errors import BrokerRefuses, broker_errors, reach
from tasks.deployment import Deployment
from tasks.jobs.documents import JobRequest, Table
from tasks.jobs.ids import check_job_id, id_of_key, new_job_id
from tasks.jobs.privacy.datasets import check_access, prove
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import ConfigSource, Submission, SubmitMessage
from tasks.jobs.table import (
    check_private_name,
    check_table_file,
    describe_table,
    is_same_file,
    is_uri,
    table_at,
    upload_table,
)
from tasks.scheduling import admission
from tasks.submission.options import problems_of_options, problems_of_ranks
from tasks.submission.refusals import record_refusal
from tasks.telemetry import tracing
from tasks.webhooks.url_policy import check_url

logger = logging.getLogger(__name__)

OUTSIDE_IDENTITY = {"priority", "tenant"}
"""Options that may differ between two submissions under one key: none decides what it makes."""


def check_request(
    submission: Submission, limits: TableLimits | None = None, *, models: ModelPolicy | None = None
) -> SafeSynthesizerParameters:
    """Parse the config and glance at the table; raise one error with every problem of the request.

    ``models`` is given where the job will run on this machine: its base model must be there.
    """
    caught: list[UserError] = []
    parsed: SafeSynthesizerParameters | None = None
    refused = list(problems_of_options(submission))
    if refused:
        caught.append(ParameterError("The job's options are refused.", refused))
    try:
        if not is_uri(submission.table):
            check_table_file(Path(submission.table), limits)
    except DataError as error:
        caught.append(error)
    try:
        parsed = parse_config(given_of(submission.config))
        problems = [*unsupported_training(parsed), *problems_of_ranks(parsed, submission)]
        if problems:
            raise ParameterError("The job asks for what this version cannot do.", problems)  # noqa: TRY301
        if parsed.dp_enabled and not caught:
            check_private_name(PurePath(submission.table).name)
    except (DataError, ParameterError) as error:
        caught.append(error)
    if parsed is not None and models is not None and (missing := [*missing_models(parsed, models)]):
        caught.append(ParameterError("Base model not found.", missing))
    if parsed is not None and not caught:
        return parsed
    if len(caught) == 1:
        raise caught[0]
    raise ParameterError(" ".join(e.message for e in caught), [p for e in caught for p in e.problems])


def submit(
    app: Deployment, submission: Submission, *, job_id: str | None = None, dataset_proof: str | None = None
) -> str:
    """Submit a job; return its id. A second submission under one key is the same job.

    A private job proves with its dataset's token, or with a proof that its sender made of it, that it may use
    the dataset.

    Raises :class:`DataError` or :class:`ParameterError` for a bad request, :class:`StoreUnavailable`, and
    :class:`BrokerUnavailable` before anything is written. A broker that fails after the request is stored
    costs no more than time: reconcile asks again. If it refuses the user only then, :class:`BrokerRefuses`
    names the job.
    """
    parsed = check_request(submission, app.settings.table_limits)
    if submission.receiver is not None:
        check_url(submission.receiver.url, app.settings)
    job_id = check_job_id(job_id or _id_for(submission))
    # The time that it takes to store a private table reveals its size.
    seen = tracing.quiet() if parsed.strictly_private else nullcontext()
    with tracing.of_job(job_id), seen, tracing.span("submit", tenant=submission.tenant):
        with broker_errors(app):
            reach(app.redis)
        app.store.check()
        token = submission.dataset_token
        request = JobRequest(
            **submission.job_options(),
            job_id=job_id,
            table=_describe(app, submission.table, strict=parsed.strictly_private),
            config=parsed,
            seed=secrets.randbits(31) if submission.seed is None else submission.seed,
            submitted_at=datetime.now(UTC),
            webhook=submission.receiver,
            dataset_proof=dataset_proof or (prove(token, job_id) if token else None),
            budget_name=draw_name() if parsed.dp_enabled and parsed.guarantee.dataset is None else "",
        )
        check_access(app.store, request, known_only=app.settings.datasets == "known")
        _store(app, request, submission)
        _ask(app, job_id)
    return job_id


def _id_for(submission: Submission) -> str:
    key = submission.idempotency_key
    return new_job_id() if key is None else id_of_key(key)


def _describe(app: Deployment, table: Path | str, *, strict: bool) -> Table:
    if is_uri(table):
        return table_at(str(table), app.settings)
    return describe_table(Path(table), strict=strict)


def _store(app: Deployment, request: JobRequest, submission: Submission) -> None:
    """Record the table, then the request; raise :class:`ParameterError` if its id means another job."""
    records = JobRepository(app.store, request.job_id)
    if not records.is_submitted():
        # First of all, so that an upload whose client died is found and forgotten.
        records.open(request)
        if request.table.input is not None:
            with tracing.span("store table"):
                upload_table(Path(submission.table), records, request.table.input)
        if records.submitted(request):
            return
        if request.table.input is not None:
            records.drop_table(request.table.input)  # another submission was first
    _raise_if_different(records, request, submission)


def _ask(app: Deployment, job_id: str) -> None:
    """Ask for the job's turn. It is stored already, so that a broker outage only delays it."""
    try:
        with broker_errors(app):
            admission.ask(app, job_id)
    except BrokerRefuses as error:
        remedy = "it is stored and begins with the next reconciliation; do not submit it again"
        stored = Problem(field="job_id", value=job_id, remedy=remedy)
        raise BrokerRefuses(error.message, [*error.problems, stored]) from error
    except BrokerUnavailable:
        logger.warning("job %s waits for reconcile", job_id, exc_info=True)
    fields = {"action": "job.submitted", "job_id": job_id}
    logger.info("submitted job %s", job_id, extra=fields)


def submit_message(app: Deployment, message: SubmitMessage, *, task_id: str) -> None:
    """Submit a job that came as a message: its sender waits for no answer, so a refusal is an outcome."""
    submission = message.submission()
    key, table = message.idempotency_key, message.table
    job_id = check_job_id(id_of_key(key) if key else task_id)
    try:
        if not is_uri(table):
            problem = Problem(
                field="table", value=table, remedy="a message must name the table by an allowed URI"
            )
            raise ParameterError("The table cannot be read.", [problem])
        submit(app, submission, job_id=job_id, dataset_proof=message.dataset_proof)
    except UserError as error:
        record_refusal(app, job_id, table=table, webhook=submission.receiver, error=error)
        raise


def given_of(config: ConfigSource) -> Mapping[str, Any]:
    """Return a config as it was given, unchecked."""
    if isinstance(config, SafeSynthesizerParameters):
        return config.model_dump(mode="json")
    return read_config(config) if isinstance(config, Path) else config or {}


def _raise_if_different(records: JobRepository, request: JobRequest, submission: Submission) -> None:
    stored = records.request()
    # A config's drawn random_state differs between two parses of the same text.
    drawn = {"data": {"random_state"}}
    same = (
        _is_same_table(records, stored, request.table, submission.table)
        and _made_by(stored) == _made_by(request)
        and stored.config.model_dump(exclude=drawn) == request.config.model_dump(exclude=drawn)
        and stored.webhook == request.webhook
        and submission.seed in (None, stored.seed)
    )
    if not same:
        remedy = "this key belongs to a job with another table, config, webhook or seed; use a new key"
        problem = Problem(field="idempotency_key", value=request.idempotency_key, remedy=remedy)
        raise ParameterError("The idempotency key is taken.", [problem])


def _made_by(request: JobRequest) -> dict[str, Any]:
    """Return the options that two submissions under one key must share."""
    return {name: value for name, value in request.job_options().items() if name not in OUTSIDE_IDENTITY}


def _is_same_table(records: JobRepository, stored: JobRequest, given: Table, table: Path | str) -> bool:
    """Tell whether a file is the one that was uploaded, or a URI the one that was named."""
    there = records.table_file(stored)
    if there is None or given.uri is not None:
        return (stored.table.name, stored.table.uri) == (given.name, given.uri)
    return is_same_file(there, Path(table))
