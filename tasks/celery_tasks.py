"""The Celery tasks: parse, call, record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn, cast

from celery import Task, shared_task
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from pydantic import ValidationError

from nss_train.contract import Stage
from nss_train.errors import InfrastructureError, NSSTrainError, ParameterError, UserError
from tasks.app import App
from tasks.broker.errors import broker_errors
from tasks.execution.delivery import (
    NEWER_DELAY_S,
    RETRY_DELAY_S,
    JobEnded,
    Superseded,
    TryLater,
    Worker,
    run_stage,
)
from tasks.execution.summary import summary
from tasks.jobs import versioning
from tasks.jobs.documents import StageMessage
from tasks.jobs.ids import check_job_id
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import SubmitMessage
from tasks.scheduling import admission
from tasks.scheduling.reconciliation import keep_from_stranding
from tasks.store.base import Store
from tasks.submission.refusals import refuse_message
from tasks.submission.submit import submit_message
from tasks.telemetry import tracing
from tasks.telemetry.counters import Action, count
from tasks.webhooks import delivery

EXPECTED = (UserError, ValidationError, versioning.NewerVersion, versioning.Unreadable)
"""Errors of one message or job: one line in the log, not a traceback."""
WEBHOOK_S = 60
"""Soft time limit of a delivery: a receiver that answers byte by byte holds a worker no longer."""
SUBMIT_S = 120
"""Soft time limit of a submission, which is checked within a second; the rest is for a slow store."""
SLOW_TRIES = 3
ADMIT_RETRIES = 3
"""Retries of an admission; after them, reconcile finds the job in the store and asks again."""


def _run(task: Task, message: Mapping[str, object]) -> dict[str, Any]:
    app = cast("App", task.app)
    worker = Worker(
        name=str(task.request.hostname),
        store=app.store,
        redis=app.redis,
        settings=app.settings,
        queue=str(task.request.delivery_info.get("routing_key", "")),
        send_event=task.send_event,
        drain=app.drain,
        unseen=app.unseen,
        hosts=app.hosts,
        watchdog=app.watchdog,
        leave=app.leave,
        done=app.stage_done,
        announce=partial(delivery.announce, app),
    )
    with admission.best_effort():
        admission.admit(app)  # one message fewer waits
    if task.request.delivery_info.get("redelivered"):
        count(app.redis, Action.REDELIVERED)
    try:
        asked = read_message(message, app.store)
    except Superseded as done:
        raise Ignore(str(done)) from done
    except TryLater as later:
        _hand_back(task, later, delay_s=later.delay_s)
    try:
        with tracing.flushed():
            run_stage(asked, worker=worker)
    except Superseded as done:
        # Ignoring the message also keeps Celery from sending the rest of the chain.
        raise Ignore(str(done)) from done
    except JobEnded as done:
        _let_another_begin(app, asked.job_id)
        raise Ignore(str(done)) from done
    except TryLater as later:
        keep_from_stranding(app.redis, asked.job_id)
        _hand_back(task, later, delay_s=later.delay_s)
    except NSSTrainError:
        _let_another_begin(app, asked.job_id)
        raise
    if asked.stage is Stage.SAVE_MODEL:
        _let_another_begin(app, asked.job_id)
    return summary(asked, JobRepository(app.store, asked.job_id))


def _let_another_begin(app: App, job_id: str) -> None:
    """Release the ended job's place, and admit the next job."""
    with admission.best_effort():
        admission.release(app.redis, job_id)
        admission.admit(app)


def read_message(message: Any, store: Store) -> StageMessage:
    """Return what a message asks for.

    A message that claims to be newer is believed only if the job in the store is newer, too
    (:class:`TryLater`): anyone can make the claim, and a worker that waits does no other work. Otherwise the
    message is dropped (:class:`Superseded`), and reconcile sends one that this release can read.
    """
    try:
        return versioning.parse(StageMessage, message, what="A message")
    except versioning.NewerVersion as error:
        try:
            JobRepository(store, str(message.get("job_id"))).request()
        except versioning.NewerVersion:
            raise TryLater(str(error), delay_s=NEWER_DELAY_S) from error
        except InfrastructureError as away:
            raise TryLater(str(away)) from away
        except ParameterError:
            raise Superseded("a newer message of no job") from error
        raise Superseded(str(error)) from error


def _hand_back(task: Task, error: Exception, *, delay_s: float) -> NoReturn:
    """Put the message back for any free worker, then wait ``delay_s`` before taking another.

    The worker waits, not the message: Celery would hand a delayed message to a worker that may be busy for
    hours when it is due. It waits after the message is back: of two workers, the one that cannot reach the
    store must not be the one that takes it again.
    """
    again = task.retry(countdown=0, exc=error, throw=False)
    cast("App", task.app).drain.wait(delay_s)
    raise again from error


@shared_task(name="nss_train.prepare_data", bind=True, throws=EXPECTED, max_retries=None)
def prepare_data(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Check the table, resolve the config, write the training examples."""
    return _run(self, message)


@shared_task(name="nss_train.load_model", bind=True, throws=EXPECTED, max_retries=None)
def load_model(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Prepare the base model, once per digest."""
    return _run(self, message)


@shared_task(name="nss_train.train", bind=True, throws=EXPECTED, max_retries=None)
def train(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune the adapter of one job on this worker's devices."""
    return _run(self, message)


@shared_task(name="nss_train.save_model", bind=True, throws=EXPECTED, max_retries=None)
def save_model(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Assemble the artifact tree."""
    return _run(self, message)


@shared_task(name=admission.ADMIT, bind=True, throws=EXPECTED, max_retries=ADMIT_RETRIES)
def admit(self: Task, *, job_id: str) -> None:
    """Let a submitted job wait for its tenant's turn."""
    app = cast("App", self.app)
    try:
        with broker_errors(app):
            admission.apply(app, check_job_id(str(job_id)))
    except InfrastructureError as error:
        _hand_back(self, error, delay_s=RETRY_DELAY_S)


@shared_task(
    name=delivery.TASK, bind=True, throws=EXPECTED, soft_time_limit=WEBHOOK_S, time_limit=2 * WEBHOOK_S
)
def webhook(self: Task, *, job_id: str) -> None:
    """Notify a job's owner of its progress or outcome. Reconcile retries failures at growing intervals."""
    app = cast("App", self.app)
    with broker_errors(app):
        delivery.deliver(app, check_job_id(str(job_id)))


@shared_task(
    name="nss_train.submit",
    bind=True,
    throws=(*EXPECTED, SoftTimeLimitExceeded),
    max_retries=None,
    soft_time_limit=SUBMIT_S,
    time_limit=2 * SUBMIT_S,
)
def submit(
    self: Task,
    **message: object,
) -> None:
    """Submit a job from any Celery client; its id follows from its key, or is the id of this task.

    The keywords are the fields of :class:`~tasks.jobs.submission.SubmitMessage`.
    """
    try:
        _submit(cast("App", self.app), message, task_id=str(self.request.id))
    except versioning.Unreadable:
        raise  # of a document of the job, which reconcile reports; a retry would fail the same way
    except InfrastructureError as error:
        # The submission is recorded nowhere else yet.
        _hand_back(self, error, delay_s=RETRY_DELAY_S)
    except SoftTimeLimitExceeded as error:
        if self.request.retries >= SLOW_TRIES:
            raise
        _hand_back(self, error, delay_s=0)  # a store may be slow, and a submission is small


def _submit(app: App, message: Mapping[str, object], *, task_id: str) -> None:
    try:
        found = versioning.parse(SubmitMessage, message, what="A submission")
    except (versioning.NewerVersion, ValidationError) as error:
        # The cause is left out: it holds what was sent.
        raise refuse_message(app, message, task_id=task_id, error=error) from None
    submit_message(app, found, task_id=task_id)
