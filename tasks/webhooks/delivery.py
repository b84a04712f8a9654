"""The notices to a job's owner: signed, at least once, on the record, and never within a stage.

Notices are derived from the job's documents, so that nothing has to be remembered: one for its outcome and,
if asked for, one for each committed stage. A job with open notices is listed below ``webhooks/`` in the store
until all of them are delivered or given up. The signature is that of https://www.standardwebhooks.com: a
receiver checks it, the time that is signed with it, and keeps ``webhook-id`` to recognize a repetition.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from kombu.exceptions import OperationalError
from pydantic import Field
from redis.exceptions import RedisError

from nss_train.contract import Frozen, Stage
from nss_train.errors import InfrastructureError, ParameterError
from tasks.deployment import Deployment
from tasks.jobs.documents import OutcomeRecord
from tasks.jobs.repository import JobRepository
from tasks.jobs.versioning import Versioned
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.telemetry.counters import Action, count
from tasks.webhooks.url_policy import post

logger = logging.getLogger(__name__)

TASK = "nss_train.webhook"
PENDING = "webhooks/"
"""Store folder of the jobs that have open notices."""
BACKOFF_FACTOR = 4
_GONE = 410
"""Status of a receiver that wants no further notice."""
_ASKED_S = 300
"""Time after which a message that is on its way counts as lost."""


class Notice(Frozen):
    """One notice to a job's owner."""

    name: str
    """Name of the folder of its deliveries; with the job's id it is the ``webhook-id``."""
    event: str
    at: datetime
    data: dict[str, Any]

    def body(self) -> str:
        """Return what is signed and sent: ids, states and warnings, which quote no cell as errors may."""
        return json.dumps({"type": self.event, "timestamp": self.at.isoformat(), "data": self.data})


class WebhookAttempt(Versioned):
    """``webhooks/<notice>/<n>.json``: one attempt to deliver a notice."""

    attempt: int
    at: datetime
    status: int | None = None
    """HTTP status of the receiver; ``None``: it did not answer, or the worker died meanwhile."""
    error: str | None = Field(default=None, max_length=500)

    @property
    def is_final(self) -> bool:
        """Tell whether nothing is left to do: the receiver has it, or wants no more."""
        return self.status is not None and (200 <= self.status < 300 or self.status == _GONE)

    @property
    def is_over(self) -> bool:
        return self.status is not None or self.error is not None


def announce(app: Deployment, job_id: str) -> None:
    """Ask for the delivery of a job's notices. A broker outage fails no stage: reconcile asks again."""
    try:
        app.send_task(TASK, kwargs={"job_id": job_id})
    except (RedisError, OperationalError, OSError):
        logger.warning("the webhook of job %s is not asked for yet", job_id, exc_info=True)


def announce_due(app: Deployment) -> list[str]:
    """Ask for the delivery of all notices that are due; return the ids of their jobs.

    Raises what the store raises.
    """
    asked = []
    for job_id in list(app.store.children(PENDING)):
        try:
            records = JobRepository(app.store, job_id)
            wanted = bool(_due(records, app.settings))
            if not wanted:
                _forget_if_settled(records, app.settings)
        except ParameterError:
            continue  # its submission is not finished, and will be or will be forgotten
        except InfrastructureError:
            logger.warning("the webhook of job %s is left for now", job_id, exc_info=True)
            continue
        if wanted and app.redis.set(_asked_key(job_id), "asked", nx=True, ex=_ASKED_S):
            announce(app, job_id)
            asked.append(job_id)
    return asked


def deliver(app: Deployment, job_id: str) -> None:
    """Deliver the notices of a job that are due; forget the job when all are delivered or given up."""
    app.redis.delete(_asked_key(job_id))
    records = JobRepository(app.store, job_id)
    for notice in _due(records, app.settings):
        if not _give(notice, records, app):
            break  # the receiver is down: the rest waits too
    _forget_if_settled(records, app.settings)


def _forget_if_settled(records: JobRepository, settings: Settings) -> None:
    """Stop looking at a job whose notices are all delivered or given up."""
    if records.outcome() is not None and not _open_notices(records, settings):
        records.store.delete(records.keys.webhook_pending)


def _give(notice: Notice, records: JobRepository, app: Deployment) -> bool:
    """Try once; return whether the receiver has it now. The record comes first: a crash counts as a try."""
    past = attempts(records, notice)
    attempt = WebhookAttempt(attempt=len(past) + 1, at=datetime.now(UTC))
    key = records.keys.webhook(notice.name, attempt.attempt)
    if not records.store.put_if_absent(key, _encode(attempt)):
        return False  # another worker delivers it
    try:
        status = post(_url(records), *_signed(notice, records.job_id, app.settings), settings=app.settings)
    except (InfrastructureError, ParameterError) as error:
        ended = attempt.model_copy(update={"error": error.message[:500]})
    else:
        ended = attempt.model_copy(update={"status": status})
    if not ended.is_final:
        count(app.redis, Action.WEBHOOKS_FAILED)
    records.store.write(key, _encode(ended))
    _log(notice, ended, records.job_id, app.settings)
    return ended.is_final


def _signed(notice: Notice, job_id: str, settings: Settings) -> tuple[bytes, dict[str, str]]:
    """Return body and headers. Several secrets make several signatures, so that one can be replaced."""
    from standardwebhooks import Webhook as Signer

    body, now, name = notice.body(), datetime.now(UTC), f"{job_id}.{notice.name}"
    secrets = settings.webhook_secret.get_secret_value().split()
    signatures = " ".join(Signer(secret).sign(name, now, body) for secret in secrets)
    return body.encode(), {
        "content-type": "application/json",
        "user-agent": "nss-train",
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signatures,
    }


def notices(records: JobRepository) -> Iterator[Notice]:
    """Yield all notices of a job so far, in order; raise :class:`ParameterError` without such a job."""
    webhook = records.request().webhook
    if webhook is None:
        return
    for stage in Stage if webhook.progress else ():
        marker = records.marker(stage)
        if marker is not None:
            data = {"job_id": records.job_id, "stage": stage.value}
            yield Notice(name=stage.value, event="stage.committed", at=marker.finished_at, data=data)
    outcome = records.outcome()
    if outcome is not None:
        yield of_outcome(outcome, records.job_id)


def of_outcome(found: OutcomeRecord, job_id: str) -> Notice:
    data = {
        "job_id": job_id,
        "outcome": found.outcome.value,
        "stage": None if found.stage is None else found.stage.value,
        "error": None if found.error is None else found.error["type"],
        "warnings": list(found.warnings),
    }
    return Notice(name="outcome", event=f"job.{found.outcome}", at=found.finished_at, data=data)


def attempts(records: JobRepository, notice: Notice) -> list[WebhookAttempt]:
    """Return the attempts to deliver a notice so far."""
    return list(_attempts(records.store, records, notice))


def _attempts(store: Store, records: JobRepository, notice: Notice) -> Iterator[WebhookAttempt]:
    numbers = sorted(
        int(name.removesuffix(".json")) for name in store.children(records.keys.webhooks(notice.name))
    )
    for number in numbers:
        found = records.read(records.keys.webhook(notice.name, number), WebhookAttempt)
        if found is not None:
            yield found


def _open_notices(records: JobRepository, settings: Settings) -> list[Notice]:
    return [notice for notice in notices(records) if not _is_settled(attempts(records, notice), settings)]


def _due(records: JobRepository, settings: Settings) -> list[Notice]:
    now, found = datetime.now(UTC), _open_notices(records, settings)
    return [notice for notice in found if _next_at(attempts(records, notice), settings) <= now]


def _is_settled(past: list[WebhookAttempt], settings: Settings) -> bool:
    if any(one.is_final for one in past):
        return True
    # One without a recorded end may be under way; its time runs out like that of a failed one.
    return len(past) >= settings.webhook_attempts and (
        past[-1].is_over or _next_at(past, settings) <= datetime.now(UTC)
    )


def _next_at(past: list[WebhookAttempt], settings: Settings) -> datetime:
    if not past:
        return datetime.min.replace(tzinfo=UTC)
    return past[-1].at + timedelta(seconds=settings.webhook_backoff_s * BACKOFF_FACTOR ** (len(past) - 1))


def _url(records: JobRepository) -> str:
    webhook = records.request().webhook
    return "" if webhook is None else webhook.url


def _log(notice: Notice, ended: WebhookAttempt, job_id: str, settings: Settings) -> None:
    given_up = not ended.is_final and ended.attempt >= settings.webhook_attempts
    action = "webhook.delivered" if ended.is_final else "webhook.given_up" if given_up else "webhook.failed"
    fields = {"action": action, "job_id": job_id, "event": notice.event, "attempt": ended.attempt}
    logger.info("%s of job %s: %s", notice.event, job_id, ended.error or ended.status, extra=fields)


def _asked_key(job_id: str) -> str:
    return f"nss-train:webhook:{job_id}"


def _encode(document: Frozen) -> bytes:
    return document.model_dump_json(indent=1).encode()
