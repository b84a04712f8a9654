"""The Celery tasks: parse, call, record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from celery import Task, shared_task
from celery.exceptions import Ignore

from tasks.app import App
from tasks.counters import count
from tasks.job import StageMessage
from tasks.reconcile import keep_from_stranding
from tasks.reconcile import reconcile as reconcile_jobs
from tasks.run import JobEnded, Superseded, TryLater, Worker, run_stage
from tasks.submit import submit_table


def _run(task: Task, message: Mapping[str, Any]) -> None:
    app = cast("App", task.app)
    worker = Worker(
        name=str(task.request.hostname),
        store=app.store,
        redis=app.redis,
        settings=app.settings,
        send_event=task.send_event,
        drain=app.drain,
        leave=app.leave,
    )
    if task.request.delivery_info.get("redelivered"):
        count(app.redis, "redelivered")
    try:
        run_stage(StageMessage.model_validate(message), worker=worker)
    except (JobEnded, Superseded) as done:
        # Ignoring the message also keeps Celery from sending the rest of the chain.
        raise Ignore(str(done)) from done
    except TryLater as later:
        # Waiting here, not in the message: Celery would hand a delayed one to a worker that may be busy
        # for hours when its time has come.
        keep_from_stranding(app.redis, str(message.get("job_id")))
        app.drain.wait(later.delay_s)
        raise task.retry(countdown=0, max_retries=None, exc=later) from later


@shared_task(name="nss_train.prepare_data", bind=True)
def prepare_data(self: Task, message: dict[str, Any]) -> None:
    """Check the table, resolve the config, write the training examples."""
    _run(self, message)


@shared_task(name="nss_train.load_model", bind=True)
def load_model(self: Task, message: dict[str, Any]) -> None:
    """Prepare the base model, once per digest."""
    _run(self, message)


@shared_task(name="nss_train.train", bind=True)
def train(self: Task, message: dict[str, Any]) -> None:
    """Fine-tune the adapter of one job on this worker's devices."""
    _run(self, message)


@shared_task(name="nss_train.save_model", bind=True)
def save_model(self: Task, message: dict[str, Any]) -> None:
    """Assemble the artifact tree."""
    _run(self, message)


@shared_task(name="nss_train.reconcile", bind=True)
def reconcile(self: Task) -> None:
    """Send jobs again that lost their message."""
    reconcile_jobs(cast("App", self.app))


@shared_task(name="nss_train.submit", bind=True)
def submit(
    self: Task,
    *,
    table: str,
    config: dict[str, Any],
    idempotency_key: str | None = None,
    seed: int | None = None,
) -> None:
    """Submit a job from any Celery client: its id is the key's, or else the id of this task."""
    app = cast("App", self.app)
    submit_table(
        app,
        table=table,
        config=config,
        idempotency_key=idempotency_key,
        seed=seed,
        task_id=str(self.request.id),
    )
