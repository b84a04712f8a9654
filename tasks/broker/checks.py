"""Checks of a broker's settings, made before they lose something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from nss_train.errors import Problem

OLDEST = (6, 2)
"""The oldest Redis whose commands the transport and the leases use."""


def weaknesses(redis: Redis) -> list[Problem]:
    """Return each setting that can lose messages, with its remedy. Raises what the connection raises."""
    info: Mapping[str, Any] = redis.info()
    return list(_weaknesses(info, _policy(redis, info)))


def _weaknesses(info: Mapping[str, object], policy: str) -> Iterator[Problem]:
    # Valkey reports the Redis version that it is compatible with here.
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        yield Problem(field="redis_version", value=version, remedy="use Redis 6.2 or later, or Valkey")
    if policy not in ("noeviction", ""):
        remedy = "messages may be evicted; set maxmemory-policy to noeviction"
        yield Problem(field="maxmemory-policy", value=policy, remedy=remedy)
    if not info.get("aof_enabled"):
        remedy = "a restart empties the queues until the next reconciliation; set appendonly to yes"
        yield Problem(field="appendonly", value="no", remedy=remedy)


def _policy(redis: Redis, info: Mapping[str, object]) -> str:
    """Return the policy from ``INFO``, or from ``CONFIG`` where that is allowed; empty without either."""
    told = info.get("maxmemory_policy")
    if told:
        return str(told)
    try:
        found: Mapping[str, Any] = redis.config_get("maxmemory-policy")  # type: ignore[assignment]
    except ResponseError:
        return ""
    return str(found.get("maxmemory-policy", ""))
