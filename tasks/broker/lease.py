"""The lease of a stage, held by its worker. It saves wasted work; the store's claims ensure the result."""

from __future__ import annotations

import logging
from enum import StrEnum

from redis import Redis
from redis.exceptions import LockError, LockNotOwnedError, RedisError
from redis.lock import Lock

from nss_train.contract import Stage
from nss_train.errors import BrokerUnavailable

logger = logging.getLogger(__name__)


class Renewal(StrEnum):
    """The result of renewing a lease."""

    HELD = "held"
    REGAINED = "regained"
    """The lease was gone, as after Redis was emptied, and was free. Another worker may have held it in
    between."""
    LOST = "lost"


def lease_key(job_id: str, stage: Stage) -> str:
    return f"nss-train:lease:{job_id}:{stage}"


class Lease:
    """A lock in Redis that expires unless it is renewed."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    @classmethod
    def acquire(cls, redis: Redis, job_id: str, stage: Stage, *, ttl_s: float) -> Lease | None:
        """Return the lease, or ``None`` when it is held; raise :class:`BrokerUnavailable` without Redis."""
        lock = redis.lock(lease_key(job_id, stage), timeout=ttl_s, thread_local=False)
        try:
            return cls(lock) if lock.acquire(blocking=False) else None
        except RedisError as error:
            raise BrokerUnavailable(f"The broker does not answer: {type(error).__name__}.") from error

    def renew(self) -> Renewal:
        """Extend the lease. An unreachable Redis proves nothing: the lease then counts as held."""
        try:
            return self._renew()
        except RedisError:
            logger.warning("the lease was not renewed: Redis does not answer", exc_info=True)
            return Renewal.HELD

    def _renew(self) -> Renewal:
        try:
            self._lock.reacquire()
        except LockNotOwnedError:
            regained = self._lock.do_acquire(self._lock.local.token)
            return Renewal.REGAINED if regained else Renewal.LOST
        return Renewal.HELD

    def release(self) -> None:
        """Release the lease. Idempotent; a lease that is lost already is left to its owner."""
        try:
            self._lock.release()
        except LockError:
            logger.debug("the lease was gone already")
        except RedisError:
            logger.warning("the lease was not released, it will expire: Redis does not answer", exc_info=True)
