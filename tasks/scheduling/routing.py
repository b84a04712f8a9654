"""The routing of stages to queues. Trainings go to the smallest device that has the memory for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nss_train.contract import Stage
from nss_train.errors import InfrastructureError
from tasks.broker.queues import PRIORITY_STEPS
from tasks.broker.task_names import TASK_NAMES
from tasks.deployment import Deployment
from tasks.jobs.documents import StageMessage
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings

logger = logging.getLogger(__name__)

GIB = 2**30
_, SOON, LATER, LAST = PRIORITY_STEPS
PRIORITIES = {
    TASK_NAMES[Stage.SAVE_MODEL]: SOON,
    TASK_NAMES[Stage.TRAIN]: SOON,
    TASK_NAMES[Stage.LOAD_MODEL]: LATER,
    TASK_NAMES[Stage.PREPARE_DATA]: LAST,
}
"""Broker priority of each stage: begun jobs finish before new ones begin. Other tasks come before all stages.

The priority of a job decides when it is admitted; after that it is one of few."""


class Router:
    """The router that Celery asks for each task it sends, also in a chain: its needs are known by then."""

    def __init__(self, app: Deployment) -> None:
        self._app = app

    def __call__(
        self,
        name: str,
        _args: object,
        kwargs: Mapping[str, object],
        _options: object,
        task: object = None,
        **_: object,
    ) -> dict[str, Any] | None:
        """Return queue and priority of a task of this project; ``None`` leaves others to Celery's default."""
        del task
        if not name.startswith("nss_train."):
            return None
        priority = {"priority": PRIORITIES[name]} if name in PRIORITIES else {}
        return {"queue": self._queue(name, kwargs)} | priority

    def _queue(self, name: str, kwargs: Mapping[str, object]) -> str:
        if name != TASK_NAMES[Stage.TRAIN]:
            return self._app.settings.queue_cpu
        return self._cuda_queue(StageMessage.model_validate(kwargs["message"]).job_id)

    def _cuda_queue(self, job_id: str) -> str:
        queues = self._app.settings.cuda_queue_names
        if len(queues) == 1:
            return queues[0]
        try:
            marker = JobRepository(self._app.store, job_id).marker(Stage.LOAD_MODEL)
        except InfrastructureError:
            # An error would lose the rest of the chain: the training fits on the largest.
            logger.warning("what job %s needs cannot be read from the store", job_id, exc_info=True)
            return queues[-1]
        needed = None if marker is None else marker.figures.get("train_bytes")
        return choose(self._app.settings, job_id, needed)


def choose(settings: Settings, job_id: str, needed_bytes: int | None) -> str:
    """Return the smallest queue with enough memory; the largest when none has it, or nothing is known."""
    queues = settings.cuda_queue_names
    largest = queues[-1]
    fields = {"action": "job.routed", "job_id": job_id, "train_bytes": needed_bytes}
    if needed_bytes is None:
        logger.info("queue=%s because it is not known what the training needs", largest, extra=fields)
        return largest
    gib = needed_bytes / GIB
    for queue in queues:
        if settings.cuda_queues[queue] >= gib:
            logger.info("queue=%s because the training needs %.1f GiB", queue, gib, extra=fields)
            return queue
    logger.warning(
        "queue=%s because it is the largest, but the training may need %.1f GiB", largest, gib, extra=fields
    )
    return largest
