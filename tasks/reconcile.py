"""Jobs that nobody works on and no message waits for are sent again: Redis may be emptied at any time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from redis import Redis

from nss_train.contract import Stage
from tasks import pipeline
from tasks.app import App
from tasks.job import JobRequest, Outcome
from tasks.lease import lease_key
from tasks.records import JobRecords
from tasks.submit import broker_errors

logger = logging.getLogger(__name__)

UNACKED = "unacked"
"""The transport's hash of delivered messages."""
MIN_AGE_S = 15.0
"""A job younger than this may still be on its way into the queue."""


def reconcile(app: App, *, now: datetime | None = None) -> list[str]:
    """Send every stranded job's next stage; the ids of these jobs.

    Safe to run at any time and on several workers at once: a message too many finds the stage
    leased or committed. Raises what store and broker raise.
    """
    with broker_errors(app):
        waiting = list(_messages(app))
        sent = []
        for job_id in list(app.store.children("jobs/")):
            records = JobRecords(app.store, job_id)
            stage = _stranded(records, app.redis, waiting, now or datetime.now(UTC))
            if stage is not None:
                pipeline.send(app, job_id, start=stage)
                fields = {"action": "job.reconciled", "job_id": job_id, "stage": stage}
                logger.warning("job %s had no message; sent again from %s", job_id, stage, extra=fields)
                sent.append(job_id)
    return sent


def _stranded(records: JobRecords, redis: Redis, waiting: list[bytes], now: datetime) -> Stage | None:
    """The stage to send again, or ``None`` for a job that has ended or goes on by itself."""
    if records.outcome() is not None:
        return None
    request = records.request()
    if not _is_old_enough(request, now) or any(request.job_id.encode() in message for message in waiting):
        return None
    cancel = records.cancellation()
    if cancel is not None:
        records.finish(Outcome.CANCELLED, reason=f"{cancel.reason} (by {cancel.requested_by})")
        return None
    stage = next((stage for stage in Stage if not records.is_finished(stage)), None)
    if stage is None or redis.exists(lease_key(request.job_id, stage)):
        return None
    return stage


def _is_old_enough(request: JobRequest, now: datetime) -> bool:
    return (now - request.submitted_at).total_seconds() >= MIN_AGE_S


def _messages(app: App) -> Iterator[bytes]:
    """Every message in the broker, waiting or delivered. Each names its job in its headers."""
    for queue in {app.settings.queue_cpu, app.settings.queue_cuda}:
        # One list for each priority: the bare name and the name with the priority's number.
        for key in [queue.encode(), *app.redis.scan_iter(f"{queue}\x06\x16*")]:
            yield from map(_raw, app.redis.lrange(key, 0, -1))
    yield from map(_raw, app.redis.hvals(UNACKED))


def _raw(message: bytes | str) -> bytes:
    return message if isinstance(message, bytes) else message.encode()
