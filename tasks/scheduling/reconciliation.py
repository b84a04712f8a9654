"""Reconciliation sends jobs again that no worker and no message holds: Redis may be emptied at any time."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from nss_train import documents
from nss_train.contract import Stage
from nss_train.errors import BrokerUnavailable, InfrastructureError, StoreUnavailable
from tasks.broker import queues
from tasks.broker.errors import broker_errors
from tasks.broker.lease import lease_key
from tasks.broker.task_names import TASK_NAMES
from tasks.deployment import Deployment
from tasks.jobs.ids import is_job_id
from tasks.jobs.repository import JobRepository
from tasks.jobs.versioning import NewerVersion
from tasks.scheduling import admission, chain
from tasks.telemetry.counters import Action, count
from tasks.telemetry.histograms import count_job

logger = logging.getLogger(__name__)

STRANDED = "nss-train:stranded"
"""Hash of the jobs that were found without message and lease, and since when by the clock of Redis."""
ABANDONED = timedelta(days=1)
"""Time after which an unfinished submission is forgotten."""


def reconcile(app: Deployment, *, after_s: float | None = None) -> list[str]:
    """Send the next stage of every job that is stranded for ``after_s``; return the ids of these jobs.

    A job is stranded when no message of it waits in a queue and no worker holds the lease of its stage. A
    delivered message proves nothing: its worker holds the lease, and when the transport delivers it again
    depends on the clocks of two machines. By default ``after_s`` is the time of a lease: a shorter absence
    may be a message on its way.

    Ended jobs that a worker had no time to tidy up are tidied up. Safe to run at any time and on several
    workers at once: one of them sends, and a message too many finds the stage leased or committed. Raises
    what store and broker raise.
    """
    wait_s = app.settings.lease_ttl_s if after_s is None else after_s
    with broker_errors(app):
        around = _Around.look(app)
        # An operator's tool may leave a name of its own in a folder.
        opened = list(filter(is_job_id, app.store.children("open/")))
        # A held job is looked at when its turn comes.
        begun = [job_id for job_id in opened if job_id not in around.held]
        sent = [job_id for job_id in begun if _look_after(app, job_id, around, wait_s)]
        for job_id in around.at_work - set(opened):
            admission.release(app.redis, job_id)
        admission.admit(app)
    return sent


def _look_after(app: Deployment, job_id: str, around: _Around, wait_s: float) -> bool:
    """Send a job again if it is due; return whether it was. A fault of one must not keep others waiting."""
    try:
        return _revived(app, JobRepository(app.store, job_id), around, wait_s)
    except NewerVersion:
        app.redis.hdel(STRANDED, job_id)  # a worker of the newer release looks after it
    except (StoreUnavailable, BrokerUnavailable):
        raise
    except InfrastructureError:
        fields = {"action": "job.unreadable", "job_id": job_id}
        logger.exception(
            "job %s is skipped because one of its documents cannot be read", job_id, extra=fields
        )
        admission.release(app.redis, job_id)
    return False


def _revived(app: Deployment, records: JobRepository, around: _Around, wait_s: float) -> bool:
    job_id, stage = records.job_id, _open_stage(app, records)
    if stage is None or job_id in around.asking:
        app.redis.hdel(STRANDED, job_id)
    elif job_id in around.sent or app.redis.exists(lease_key(job_id, stage)):
        app.redis.hdel(STRANDED, job_id)
        if job_id not in around.at_work:
            admission.note(app.redis, job_id, records.request().tenant)
    elif _is_due(app.redis, job_id, wait_s):
        _send_again(app, records, stage)
        return True
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Around:
    """The jobs that Redis knows of."""

    asking: set[str]
    """Jobs with a message that asks for admission."""
    sent: set[str]
    """Jobs with a message of one of their stages."""
    held: set[str]
    at_work: set[str]

    @classmethod
    def look(cls, app: Deployment) -> _Around:
        found = list(queues.messages(app.redis, app.settings))
        return cls(
            asking={job for message in found for job in _named(_asking, message)},
            sent={job for message in found for job in _named(_job_of, message)},
            held=admission.held(app.redis),
            at_work=set(admission.in_flight(app.redis)),
        )


def _send_again(app: Deployment, records: JobRepository, stage: Stage) -> None:
    """Give a job what it lacks: its turn if it has not begun, else the message of its stage.

    A cancelled job is sent, too: the worker that it comes to ends it.
    """
    request = records.request()
    if stage is Stage.PREPARE_DATA and not records.attempts(stage):
        admission.forget(app.redis, request.job_id)
        admission.hold(app.redis, request)
    else:
        admission.note(app.redis, request.job_id, request.tenant)
        chain.send(app, request.job_id, start=stage)
    count(app.redis, Action.RECONCILED)
    fields = {"action": "job.reconciled", "job_id": request.job_id, "stage": stage}
    logger.warning("job %s had no message; sent again from %s", request.job_id, stage, extra=fields)


def _open_stage(app: Deployment, records: JobRepository) -> Stage | None:
    """Return the stage that a job waits for, or ``None`` when it waits for none and is tidied up."""
    if not records.is_submitted():
        _forget_abandoned(records)
        return None
    ended = records.outcome()
    if ended is not None:
        count_job(app.redis, records.job_id, ended.outcome)
        admission.release(app.redis, records.job_id)
        _tidy(records)
        return None
    return next((stage for stage in Stage if not records.is_finished(stage)), None)


def _tidy(records: JobRepository) -> None:
    """Tidy up a job that has ended. An error in one must not keep the others waiting."""
    try:
        records.tidy()
    except StoreUnavailable:
        raise
    except InfrastructureError:
        logger.exception("job %s is not tidied up", records.job_id, extra={"action": "job.untidy"})


def _forget_abandoned(records: JobRepository) -> None:
    since = records.opened_at()
    if since is not None and datetime.now(UTC) - since > ABANDONED:
        records.forget()


def keep_from_stranding(redis: Redis, job_id: str) -> None:
    """Note for reconcile that a worker has the job's message and will put it back. Best effort."""
    try:
        redis.hdel(STRANDED, job_id)
    except RedisError:
        logger.debug("Redis does not answer", exc_info=True)


def _is_due(redis: Redis, job_id: str, wait_s: float) -> bool:
    """Tell whether a job is stranded for ``wait_s``; of several callers, one gets ``True``."""
    seconds, microseconds = redis.time()
    now = seconds + microseconds / 1e6
    redis.hsetnx(STRANDED, job_id, str(now))
    since = float(redis.hget(STRANDED, job_id) or now)
    return now - since >= wait_s and redis.hdel(STRANDED, job_id) == 1


def _named(
    reader: Callable[[Mapping[str, Any]], Iterator[str]], message: Mapping[str, object]
) -> Iterable[str]:
    """Return the jobs that a message names; a forged one names none, and waits to be refused by a worker."""
    with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return [str(job) for job in reader(message)]
    return ()


def _job_of(message: Mapping[str, Any]) -> Iterator[str]:
    if str(message["headers"].get("task", "")) in TASK_NAMES.values():
        yield _arguments(message)["message"]["job_id"]


def _asking(message: Mapping[str, Any]) -> Iterator[str]:
    if message["headers"].get("task") == admission.ADMIT:
        yield _arguments(message)["job_id"]


def _arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    _args, kwargs, _embedded = documents.parse(base64.b64decode(message["body"]))
    found: dict[str, Any] = kwargs
    return found
