"""The result of a stage's task, as Flower shows it: the job's warnings, and where its artifacts are."""

from __future__ import annotations

import logging
from typing import Any

from nss_train.contract import Stage
from nss_train.errors import InfrastructureError
from tasks.jobs.documents import StageMessage, warnings_among
from tasks.jobs.repository import JobRepository

logger = logging.getLogger(__name__)


def summary(done: StageMessage, records: JobRepository) -> dict[str, Any]:
    """Return what is published of a job whose stage is committed; counts come first, as Flower cuts it."""
    try:
        prepared = records.marker(Stage.PREPARE_DATA)
    except InfrastructureError:
        logger.warning("the result of job %s is shown without its warnings", done.job_id, exc_info=True)
        return {"job_id": done.job_id}
    warnings = () if prepared is None else warnings_among(prepared.figures)
    found: dict[str, Any] = {"job_id": done.job_id, "warnings": len(warnings)}
    if done.stage is Stage.SAVE_MODEL:
        found["artifacts"] = f"nss-train fetch {done.job_id} FOLDER"
    return found | ({"told": list(warnings)} if warnings else {})
