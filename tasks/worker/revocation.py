"""Cancellation through Celery itself: a revoked stage cancels its job."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from nss_train.errors import StoreUnavailable
from tasks.deployment import Deployment
from tasks.jobs import versioning
from tasks.jobs.documents import CancelRequest, Outcome, StageMessage
from tasks.jobs.repository import JobRepository
from tasks.telemetry.histograms import count_job

logger = logging.getLogger(__name__)


def on_revoked(app: Deployment, request: Any) -> None:
    """Record what Celery did: it dropped the message of a stage, or killed the process that ran it."""
    message = (request.kwargs or {}).get("message")
    if message is None:
        return
    job_id = versioning.parse(StageMessage, message, what="A revoked message").job_id
    cancel = CancelRequest(
        reason="revoked through Celery", requested_by="celery", requested_at=datetime.now(UTC)
    )
    try:
        records = JobRepository(app.store, job_id)
        if not records.is_submitted():
            return
        records.request_cancel(cancel)
        if records.finish(Outcome.CANCELLED, reason=str(records.cancellation() or cancel)):
            count_job(app.redis, job_id, Outcome.CANCELLED)
    except StoreUnavailable:
        # A message of the job is gone: reconcile sends the stage again, and Celery revokes it again.
        logger.exception("job %s was revoked, but the store does not answer", job_id)
