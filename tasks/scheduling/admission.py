"""Admission: jobs wait outside the queues, which are lists, until it is the turn of their tenant.

A queue serves first come, first served, so that a thousand jobs of one tenant would keep all others waiting.
Hence a submitted job asks to be admitted, and its stages are sent when

- its tenant has fewer jobs at work than ``tenant_quota`` allows, and fewer than the other tenants that
  wait (among equals, the one that was served longest ago is next), and
- few stages wait in the queues already (``admission_window``): there are enough to keep every worker
  busy, and few enough that a newcomer soon gets a worker.

Within a tenant the smaller number of ``priority`` goes first, then the earlier submission. All of this lives
in Redis and may be lost: reconcile finds the jobs that have not begun in the store, and asks for them again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import LockError, LockNotOwnedError, RedisError

from nss_train.contract import Frozen
from nss_train.errors import BrokerUnavailable, InfrastructureError, StoreUnavailable
from tasks.broker import queues
from tasks.broker.queues import now_s
from tasks.deployment import Deployment
from tasks.jobs.documents import JobRequest
from tasks.jobs.repository import JobRepository
from tasks.scheduling import chain
from tasks.telemetry.counters import Action, count

logger = logging.getLogger(__name__)

ADMIT = "nss_train.admit"
TENANTS = "nss-train:tenants"
"""Sorted set of the tenants that wait, by when one of their jobs was admitted last."""
IN_FLIGHT = "nss-train:in-flight"
"""Hash of the jobs that were admitted and have not ended: tenant and time."""
FIGURES = "nss-train:admission"
"""Hash of the figures that a client may see: how many jobs wait, and how fast they are served."""
LOCK = "nss-train:admission-lock"
LOCK_S = 30.0
PATIENCE_S = 5.0
_YEARS_S = 1e11
"""Weight of a priority in a score: more seconds than any timestamp, so that the priority comes first."""
_WEIGHT = 0.2
"""Weight of the newest job in the mean time of a job."""


class Place(Frozen):
    """The place in line of a job that has not begun."""

    ahead: int
    """Jobs that begin before it, at most."""
    starts_in_s: float | None
    """Expected wait, from the mean time of a job and the jobs at work; ``None`` before a job has ended."""


def held_key(tenant: str) -> str:
    """Return the key of the sorted set of a tenant's jobs that wait for their turn."""
    return f"nss-train:held:{tenant}"


def ask(app: Deployment, job_id: str) -> None:
    """Ask for a job to be admitted. The message is served before every stage that waits."""
    app.send_task(ADMIT, kwargs={"job_id": job_id}, priority=queues.PRIORITY_STEPS[0])


def apply(app: Deployment, job_id: str) -> None:
    """Let a job wait for its turn, unless it is at work or has ended; admit the jobs whose turn it is.

    Raises what store and broker raise.
    """
    records = JobRepository(app.store, job_id)
    if not app.redis.hexists(IN_FLIGHT, job_id) and records.outcome() is None:
        hold(app.redis, records.request())
    admit(app)


def hold(redis: Redis, request: JobRequest) -> None:
    """Put a job in its tenant's line."""
    score = request.priority * _YEARS_S + request.submitted_at.timestamp()
    redis.zadd(held_key(request.tenant), {request.job_id: score})
    redis.zadd(TENANTS, {request.tenant: 0}, nx=True)


def admit(app: Deployment) -> list[str]:
    """Send the stages of every job whose turn it is; return their ids. One worker at a time does so."""
    if not app.redis.zcard(TENANTS):
        return []
    lock = app.redis.lock(LOCK, timeout=LOCK_S, blocking_timeout=PATIENCE_S)
    if not lock.acquire():
        return []  # its holder admits, and every delivery comes here again
    admitted = list[str]()
    try:
        for job_id in _admit(app):
            admitted.append(job_id)
            lock.reacquire()  # it lasts as long again: a slow store takes its time for each job
        _tell(app.redis)
    except LockNotOwnedError:
        logger.warning("another worker admits the next jobs: admitting one took longer than %g s", LOCK_S)
    finally:
        with suppress(LockError):
            lock.release()
    return admitted


def note(redis: Redis, job_id: str, tenant: str) -> None:
    """Count a job as being at work."""
    redis.hsetnx(IN_FLIGHT, job_id, f"{tenant}|{now_s(redis)}")


def release(redis: Redis, job_id: str) -> None:
    """Record that a job has ended: its tenant may have another."""
    found: bytes | None = redis.hget(IN_FLIGHT, job_id)  # type: ignore[assignment]
    if found is None or not redis.hdel(IN_FLIGHT, job_id):
        return
    seconds = now_s(redis) - float(found.decode().split("|")[1])
    told = redis.hget(FIGURES, "mean_job_s")
    mean_s = seconds if told is None else (1 - _WEIGHT) * float(told) + _WEIGHT * seconds
    redis.hset(FIGURES, "mean_job_s", str(mean_s))


def forget(redis: Redis, job_id: str) -> None:
    """Record that a job is not at work after all."""
    redis.hdel(IN_FLIGHT, job_id)


def held(redis: Redis) -> set[str]:
    """Return every job that waits for its turn."""
    return {job for tenant in _members(redis, TENANTS) for job in _members(redis, held_key(tenant))}


def in_flight(redis: Redis) -> dict[str, str]:
    """Return every job that is at work, and its tenant."""
    found: Mapping[bytes, bytes] = redis.hgetall(IN_FLIGHT)  # type: ignore[assignment]
    return {job.decode(): value.decode().split("|")[0] for job, value in found.items()}


def place(redis: Redis, job_id: str, tenant: str) -> Place | None:
    """Return a waiting job's place; ``None`` once it is admitted. Reads no more than a client may."""
    rank: int | None = redis.zrank(held_key(tenant), job_id)  # type: ignore[assignment]
    if rank is None:
        return None
    found: Mapping[bytes, bytes] = redis.hgetall(FIGURES)  # type: ignore[assignment]
    figures = {name.decode(): float(value) for name, value in found.items()}
    # Each tenant that waits may have as many turns as this one until then.
    turns = (rank + 1) * int(figures.get("tenants", 1)) - 1
    ahead = max(rank, min(int(figures.get("held", turns + 1)) - 1, turns))
    mean_s, at_work = figures.get("mean_job_s"), max(figures.get("in_flight", 1), 1)
    return Place(ahead=ahead, starts_in_s=None if mean_s is None else (ahead + 1) * mean_s / at_work)


@contextmanager
def best_effort() -> Iterator[None]:
    """Log an error of store or broker instead of raising it, where reconcile makes up for it."""
    try:
        yield
    except (RedisError, OperationalError, OSError, InfrastructureError):
        logger.warning("no job is admitted now; the next reconciliation tries again", exc_info=True)


def _admit(app: Deployment) -> Iterator[str]:
    while _has_room(app):
        tenant = _next_tenant(app)
        if tenant is None:
            return
        first = _members(app.redis, held_key(tenant), last=0)
        if not first:
            _drop(app.redis, tenant)
        elif _may_start(app, tenant, first[0]):
            app.redis.zadd(TENANTS, {tenant: now_s(app.redis)}, xx=True)
            yield first[0]


def _drop(redis: Redis, tenant: str) -> None:
    """Remove a tenant that has nothing to wait for, unless a job of it came this very moment."""
    redis.zrem(TENANTS, tenant)
    if redis.zcard(held_key(tenant)):
        redis.zadd(TENANTS, {tenant: 0}, nx=True)


def _has_room(app: Deployment) -> bool:
    """Tell whether so few stages wait that another job would soon get a worker."""
    window, settings = app.settings.admission_window, app.settings
    waiting = queues.stages_waiting(app.redis, settings)
    trainings = sum(waiting[queue] for queue in settings.cuda_queue_names)
    return waiting[settings.queue_cpu] < window and trainings < window * len(settings.cuda_queue_names)


def _next_tenant(app: Deployment) -> str | None:
    """Return the waiting tenant with the fewest jobs at work among those that may have another."""
    at_work = Counter(in_flight(app.redis).values())
    quota = app.settings.tenant_quota or float("inf")
    # In the order in which they were served: the first of equals waited longest.
    may = [name for name in _members(app.redis, TENANTS) if at_work[name] < quota]
    return min(may, key=lambda name: at_work[name], default=None)


def _may_start(app: Deployment, tenant: str, job_id: str) -> bool:
    """Start a job; return whether it began. One that cannot be read is removed: it must block no other."""
    try:
        return _start(app, tenant, job_id)
    except (StoreUnavailable, BrokerUnavailable):
        raise
    except InfrastructureError:
        fields = {"action": "job.unreadable", "job_id": job_id}
        logger.exception(
            "job %s does not begin because one of its documents cannot be read", job_id, extra=fields
        )
        app.redis.zrem(held_key(tenant), job_id)
        return False


def _start(app: Deployment, tenant: str, job_id: str) -> bool:
    """Send a job's stages, unless it ended while it waited; return whether they are sent."""
    records = JobRepository(app.store, job_id)
    begins = records.is_submitted() and records.outcome() is None
    if begins:
        note(app.redis, job_id, tenant)
        chain.send(app, job_id)
        count(app.redis, Action.ADMITTED)
        fields = {"action": "job.admitted", "job_id": job_id, "tenant": tenant}
        logger.info("job %s begins", job_id, extra=fields)
    # Last: a worker that dies before this leaves one message too many, which does no harm.
    app.redis.zrem(held_key(tenant), job_id)
    return begins


def _tell(redis: Redis) -> None:
    """Write the figures that a client may see."""
    lengths = [int(redis.zcard(held_key(tenant))) for tenant in _members(redis, TENANTS)]
    waiting = [length for length in lengths if length]
    redis.hset(FIGURES, "held", str(sum(waiting)))
    redis.hset(FIGURES, "tenants", str(len(waiting)))
    redis.hset(FIGURES, "in_flight", str(redis.hlen(IN_FLIGHT)))


def _members(redis: Redis, key: str, *, last: int = -1) -> list[str]:
    found: list[bytes] = redis.zrange(key, 0, last)  # type: ignore[assignment]
    return [name.decode() for name in found]
