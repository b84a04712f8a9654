"""Counts of what happened, by action. They live in Redis: one that is emptied begins at zero."""

from __future__ import annotations

import logging

from redis import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

KEY = "nss-train:counters"


def count(redis: Redis, action: str) -> None:
    """Add one. A Redis that is away is not worth a stage."""
    try:
        redis.hincrby(KEY, action, 1)
    except RedisError:
        logger.warning("Redis does not answer: %s is not counted", action, exc_info=True)


def read(redis: Redis) -> dict[str, int]:
    """All counts; raises what the connection raises."""
    found: dict[bytes, bytes] = redis.hgetall(KEY)  # type: ignore[assignment]
    return {name.decode(): int(value) for name, value in sorted(found.items())}
