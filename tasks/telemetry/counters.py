"""Counts of what happened, by action. They live in Redis: an emptied one begins at zero."""

from __future__ import annotations

import logging
from enum import StrEnum

from redis import Redis
from redis.exceptions import RedisError

from nss_train.errors import Retry

logger = logging.getLogger(__name__)

KEY = "nss-train:counters"


class Action(StrEnum):
    """The actions that are counted. Each is exported from the start, so that the first is an increase."""

    REDELIVERED = "redelivered"
    """A message was delivered again: its first worker died, or gave it back."""
    DUPLICATES = "duplicates"
    """A delivery found another worker at its stage."""
    FENCED = "fenced"
    """An attempt was not the first to commit, or lost its stage to another."""
    LEASES_LOST = "leases_lost"
    """A running attempt found that another worker had taken over."""
    RESUMED = "resumed"
    DRAINED = "drained"
    RETRIED_SMALLER_BATCH = f"retried_{Retry.SMALLER_BATCH}"
    RETRIED_OTHER_WORKER = f"retried_{Retry.OTHER_WORKER}"
    RETRIED_SAME_WORKER = f"retried_{Retry.SAME_WORKER}"
    RECONCILED = "reconciled"
    ADMITTED = "admitted"
    """A job that waited for its turn got it."""
    CHECKPOINTS = "checkpoints"
    MODEL_CACHE_HITS = "model_cache_hits"
    TEARDOWN_LEAKS = "teardown_leaks"
    """A worker held something that it could not release."""
    WEBHOOKS_FAILED = "webhooks_failed"
    SAME_DATA = "same_data"
    """A private job's table was seen under another dataset's name."""


def count(redis: Redis, action: str) -> None:
    """Add one. A Redis outage does not fail a stage."""
    try:
        redis.hincrby(KEY, action, 1)
    except RedisError:
        logger.warning("Redis does not answer: %s is not counted", action, exc_info=True)


def read(redis: Redis) -> dict[str, int]:
    """Return all counts. Raises what the connection raises."""
    found: dict[bytes, bytes] = redis.hgetall(KEY)  # type: ignore[assignment]
    return dict.fromkeys(map(str, Action), 0) | {name.decode(): int(n) for name, n in sorted(found.items())}
