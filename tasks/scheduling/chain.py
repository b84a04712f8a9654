"""The four stages as one Celery chain."""

from __future__ import annotations

from typing import Any

from celery import Celery, Signature, chain

from nss_train.contract import Stage
from tasks.jobs.documents import StageMessage

STAMP = "job_id"
"""By it Celery revokes all messages of a job."""
TASK_NAMES: dict[Stage, str] = {stage: f"nss_train.{stage}" for stage in Stage}


def signature(app: Celery, job_id: str, stage: Stage) -> Signature[Any]:
    """One stage as an immutable signature, stamped so that Celery can revoke it by its job."""
    message = StageMessage(job_id=job_id, stage=stage).model_dump(mode="json")
    made = app.signature(TASK_NAMES[stage], kwargs={"message": message}, immutable=True)
    made.stamp(**{STAMP: job_id})
    return made


def send(app: Celery, job_id: str, *, start: Stage = Stage.PREPARE_DATA) -> None:
    """Enqueue a job's stages from ``start`` on; each passes on to the next when it is done."""
    stages = list(Stage)
    rest = [signature(app, job_id, stage) for stage in stages[stages.index(start) :]]
    chain(*rest, app=app).apply_async()
