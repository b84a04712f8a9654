"""The four stages as one Celery chain."""

from __future__ import annotations

from typing import Any

from celery import Signature, chain

from nss_train.contract import Stage
from tasks.broker.task_names import STAMP, TASK_NAMES
from tasks.deployment import Deployment
from tasks.jobs.documents import StageMessage


def signature(app: Deployment, job_id: str, stage: Stage) -> Signature[Any]:
    """Return one stage as an immutable signature, stamped so that Celery can revoke it by its job."""
    message = StageMessage(job_id=job_id, stage=stage).model_dump(mode="json")
    made = app.signature(TASK_NAMES[stage], kwargs={"message": message}, immutable=True)
    made.stamp(**{STAMP: job_id})
    return made


def send(app: Deployment, job_id: str, *, start: Stage = Stage.PREPARE_DATA) -> None:
    """Enqueue a job's stages from ``start`` on; each passes on to the next when it is done."""
    stages = list(Stage)
    rest = [signature(app, job_id, stage) for stage in stages[stages.index(start) :]]
    chain(*rest, app=app).apply_async()
